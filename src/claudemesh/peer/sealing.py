"""From an outbox row to the frame that is submitted: header, seal, outer envelope (docs/spec/envelope.md §2)."""

from dataclasses import dataclass
from typing import Any

from claudemesh.crypto import envelope, statements
from claudemesh.errors import LocalError
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.session import Session
from claudemesh.protocol import codec, limits
from claudemesh.protocol.heads import SignedHead
from claudemesh.protocol.messages import Send
from claudemesh.types import BoxId, MeshId, PeerId, SessionId, UnixMillis


@dataclass(frozen=True, slots=True)
class Sender:
    """What every message of this peer names besides its own content."""

    mesh: MeshId
    member: PeerId
    card_number: int
    head: SignedHead
    """The newest signed head that this peer verified."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The key to encrypt to: the peer's card key, or the key of one of its sessions."""

    box: BoxId
    session: SessionId | None = None


def seal_row(
    row: OutboxRow, sender: Sender, session: Session, to: Destination, counter: int, nonce: bytes, now: UnixMillis
) -> bytes:
    """Seal one row.

    Args:
        counter: The number of this message in the session's stream to the recipient; never used for another one.
        nonce: 24 fresh random bytes.

    Returns:
        The `send` frame.

    Raises:
        Unopenable: The recipient's key is of low order; nothing was encrypted.
    """
    header = _header(row, sender, session, to, counter, now)
    sealed = envelope.seal(header, row.body, session.keys, to.box, nonce)
    return codec.encode_message(
        Send(
            k="dm",
            mesh=sender.mesh,
            sender=sender.member,
            to=row.peer,
            kid=to.box,
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


def check_body(body: bytes) -> None:
    """Refuse (`LocalError`, `usage`) a text that no envelope can carry."""
    if len(body) > limits.MAX_BODY_BYTES:
        raise LocalError("usage", f"the message has {len(body)} bytes; the most is {limits.MAX_BODY_BYTES}")


def _header(
    row: OutboxRow, sender: Sender, session: Session, to: Destination, counter: int, now: UnixMillis
) -> dict[str, Any]:
    own = {"k": "dm", "to": row.peer, "kid": to.box}
    addressed = {} if to.session is None else {"tos": to.session}
    return own | addressed | common_header(row, sender, session, counter, now)


def common_header(
    row: OutboxRow | PostRow, sender: Sender, session: Session, counter: int, now: UnixMillis
) -> dict[str, Any]:
    """What the headers of direct messages and of posts say alike."""
    header: dict[str, Any] = {
        "v": 1,
        "mesh": sender.mesh,
        "from": sender.member,
        "sess": session.id,
        "n": counter,
        "id": row.message_id,
        "ts": now,
        "prio": row.priority,
        "ct": row.content_type,
        "rs": sender.head.seq,
        "rh": sender.head.head,
        "ra": sender.head.at,
        "rg": sender.head.signature,
        "cs": sender.card_number,
    }
    optional = {
        "re": row.reply_to,
        "nb": row.not_before,
        "exp": row.expires_at,
        "intent": row.intent,
        "root": row.root,
        "hop": row.hop,
    }
    return header | {name: value for name, value in optional.items() if value is not None}
