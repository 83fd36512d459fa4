"""What a peer says to a broker (docs/spec/wire.md, one section each)."""

from typing import Annotated, Literal

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol import limits
from claudemesh.protocol.messages.base import Count, Hex16, Key, Label, Message, RequestId, Slot, Status
from claudemesh.protocol.roster import Entry
from claudemesh.types import Priority


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Answer a challenge as one session of one member; in state CHALLENGED only. wire.md §3.2.

    `h` is the signed hello, `att` the session's attestation. `cursor` lists deliveries that this peer
    has recorded but whose `ack` may have been lost; the broker deletes them.
    """

    h: Statement
    att: Statement
    sid: Label = ""
    pid: Count = 0
    cwd: Label = ""
    status: Status = "idle"
    cursor: Annotated[list[Count], msgspec.Meta(max_length=limits.MAX_UNACKNOWLEDGED_PUSHES)] = msgspec.field(
        default_factory=list
    )


class Claim(Message, frozen=True, kw_only=True, tag="claim"):
    """Answer a challenge as the holder of an invite link; in state CHALLENGED only. wire.md §3.3."""

    c: Statement


class Append(Message, frozen=True, kw_only=True, tag="append"):
    """Append entries to the roster by compare-and-swap: all of them or none. wire.md §4.2.

    In state OPEN any member's entries; in CLAIMED one `admit` by the claimed invite; in CHALLENGED the
    genesis of a mesh that the broker does not hold, and in UPLOADING the entries that follow it.
    """

    rid: RequestId
    entries: Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=limits.MAX_ENTRIES_PER_FRAME)]


class Sync(Message, frozen=True, kw_only=True, tag="sync"):
    """Fetch the roster from `seq` on; in OPEN and CLAIMED. Answered by `log`. wire.md §4.1."""

    rid: RequestId
    seq: Count


class Send(Message, frozen=True, kw_only=True, tag="send", rename={"sender": "from"}):
    """Ask the broker to store one envelope for the mailbox of `to`; in OPEN only. wire.md §5.1.

    Answered by `accepted` or `refused` with the same `id` and `to`, and again by `accepted` when it is
    sent again while stored, so a peer may resend after a lost link. All fields but `to` are hints
    to the queue: what counts is signed and encrypted inside `ct`. `att` names the session's attestation.
    """

    k: Literal["dm"]
    mesh: Key
    sender: Key
    to: Key
    kid: Key
    id: Hex16
    prio: Priority
    rs: Count
    att: Key
    nonce: Annotated[str, msgspec.Meta(min_length=32, max_length=32)]
    ct: Annotated[str, msgspec.Meta(max_length=limits.MAX_FRAME_BYTES)]
    nbf: Count | None = None
    exp: Count | None = None


class Post(Message, frozen=True, kw_only=True, tag="post", rename={"sender": "from"}):
    """Ask the broker to store one channel message for every subscriber; in OPEN only. wire.md §5.5.

    Answered by `accepted` or `refused` with the same `id` and `chan`; sent again it is answered again and
    stored once. As in `send`, every field but `chan` is a hint: what counts is signed and encrypted
    inside `ct`. `ep` names the epoch, `att` the session's attestation.
    """

    mesh: Key
    sender: Key
    chan: Hex16
    ep: Key
    id: Hex16
    prio: Priority
    rs: Count
    att: Key
    nonce: Annotated[str, msgspec.Meta(min_length=32, max_length=32)]
    ct: Annotated[str, msgspec.Meta(max_length=limits.MAX_FRAME_BYTES)]
    nbf: Count | None = None
    exp: Count | None = None


class PutEpoch(Message, frozen=True, kw_only=True, tag="put_epoch"):
    """Publish a new epoch of a scope, with one slot for each member; answered by `ok`. wire.md §5.6.

    `st` is the record, `att` names the attestation of the session that signed it, `slots` stand in the
    ascending order of the ids of those who were in the scope at the record's `rs`.
    """

    rid: RequestId
    st: Statement
    att: Key
    slots: Annotated[list[Slot], msgspec.Meta(min_length=1, max_length=limits.MAX_EPOCH_SLOTS)]


class Subscribe(Message, frozen=True, kw_only=True, tag="subscribe"):
    """Say whether this peer wants the posts of a channel; answered by `ok`. wire.md §5.7."""

    rid: RequestId
    chan: Hex16
    on: bool


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Say that deliveries are recorded durably (or refused for good): the broker deletes them. wire.md §5.4."""

    q: Annotated[list[Count], msgspec.Meta(min_length=1, max_length=limits.MAX_UNACKNOWLEDGED_PUSHES)]


class Attest(Message, frozen=True, kw_only=True, tag="attest"):
    """Publish an attestation of the same peer: a further session, or a renewed one. wire.md §6.1.

    `live` false publishes it only so that queued envelopes of a session that has ended can be sent.
    """

    rid: RequestId
    st: Statement
    sid: Label = ""
    status: Status = "idle"
    live: bool = True


class End(Message, frozen=True, kw_only=True, tag="end"):
    """Remove a session of this link from presence. wire.md §6.2."""

    sess: Key


class SetStatus(Message, frozen=True, kw_only=True, tag="set_status"):
    """Change the presence status of one session of this link. wire.md §6.3."""

    sess: Key
    status: Status


class PutCard(Message, frozen=True, kw_only=True, tag="put_card"):
    """Publish this peer's newest card; answered by `ok`. wire.md §6.4."""

    rid: RequestId
    st: Statement


class GetCards(Message, frozen=True, kw_only=True, tag="get_cards"):
    """Fetch the newest cards of members; answered by `cards`. wire.md §6.5."""

    rid: RequestId
    members: Annotated[list[Key], msgspec.Meta(max_length=1_000)]


class ListPeers(Message, frozen=True, kw_only=True, tag="list_peers"):
    """Fetch presence of the mesh; answered by `peers`. wire.md §6.6."""

    rid: RequestId


class GetAudit(Message, frozen=True, kw_only=True, tag="get_audit"):
    """Fetch audit rows from row `n` on, with a checkpoint; answered by `audit`. wire.md §7.1."""

    rid: RequestId
    n: Count


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Renew the presence lease; answered by `pong`. wire.md §3.5."""


PeerMessage = (
    Hello
    | Claim
    | Append
    | Sync
    | Send
    | Post
    | PutEpoch
    | Subscribe
    | Ack
    | Attest
    | End
    | SetStatus
    | PutCard
    | GetCards
    | ListPeers
    | GetAudit
    | Ping
)
