"""From a row of `posts` to the frame that is submitted: header, seal, outer envelope (docs/spec/channels.md §4)."""

from claudemesh.crypto import channel_envelope, statements
from claudemesh.crypto.epochs import channel_key
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.sealing import Sender, common_header
from claudemesh.peer.session import Session
from claudemesh.protocol import codec
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.messages import Post
from claudemesh.types import UnixMillis


def seal_post(
    row: PostRow, sender: Sender, session: Session, epoch: HeldEpoch, counter: int, nonce: bytes, now: UnixMillis
) -> bytes:
    """Seal one row.

    Args:
        epoch: One that the send rule allows for the row's channel now.
        counter: The number of this message in the session's stream to the channel; never used for another one.
        nonce: 24 fresh random bytes.

    Returns:
        The `post` frame.
    """
    own = {"k": "ch", "chan": row.channel, "ep": epoch.id}
    header = own | common_header(row, sender, session, counter, now)
    sealed = channel_envelope.seal(header, row.body, session.keys, channel_key(epoch.secret, row.channel), nonce)
    return codec.encode_message(
        Post(
            mesh=sender.mesh,
            sender=sender.member,
            chan=row.channel,
            ep=epoch.id,
            id=row.message_id,
            prio=row.priority,
            rs=sender.head.seq,
            att=session.attestation.digest,
            nonce=statements.to_base64url(sealed.nonce),
            ct=statements.to_base64url(sealed.ciphertext),
            nbf=row.not_before,
            exp=row.expires_at,
        )
    )
