"""Every message of the wire between a peer and a broker (docs/spec/wire.md, one section each).

A frame is one JSON object in one WebSocket text message; `t` names its type. Unknown fields are
ignored, unknown types refused. `rid` is a number that the peer chooses; the answer repeats it.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol import limits
from claudemesh.protocol.roster import Entry
from claudemesh.types import PeerId, Priority, SessionId, UnixMillis

Hex16 = Annotated[str, msgspec.Meta(min_length=32, max_length=32, pattern="^[0-9a-f]+$")]
Key = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
"""A key that is looked up, never used as it is: its length bounds it, the look-up checks it."""
Label = Annotated[str, msgspec.Meta(max_length=128)]
Slot = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}[A-Za-z0-9_-]{64}\\Z")]
"""First 8 hex digits of the box key that it is for, and 48 bytes in base64url."""
RequestId = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Status = Literal["idle", "busy", "away"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    """Base of everything that is a frame of its own."""


# From a peer to a broker


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
    cursor: Annotated[list[Count], msgspec.Meta(max_length=limits.MAX_UNACKNOWLEDGED_PUSHES)] = []


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


# From a broker to a peer


class Challenge(Message, frozen=True, kw_only=True, tag="challenge"):
    """The first frame of a link: a fresh nonce, signed by the broker for this address. wire.md §3.1."""

    st: Statement


class HelloAck(Message, frozen=True, kw_only=True, tag="hello_ack"):
    """The link is open. `st` binds the hello's `cn`, `sth` is the signed head. wire.md §3.4."""

    st: Statement
    sth: Statement
    queued: Count = 0


class Claimed(Message, frozen=True, kw_only=True, tag="claimed"):
    """The invite exists in this mesh: its roster may be fetched, and one admission appended. wire.md §3.3."""

    mesh: Key
    seq: Count
    state: Literal["open", "expired", "exhausted", "revoked"]


class Log(Message, frozen=True, kw_only=True, tag="log"):
    """Roster entries from `seq` on: the answer to `sync` or, with no `rid`, an announcement. wire.md §4.1.

    When `more` is false, `sth` signs exactly the head that the entries lead to.
    """

    seq: Count
    entries: list[Entry]
    rid: RequestId | None = None
    more: bool = False
    sth: Statement | None = None


class Appended(Message, frozen=True, kw_only=True, tag="appended"):
    """The entries are stored and ordered; `sth` signs the new head (none while uploading). wire.md §4.2."""

    rid: RequestId
    seq: Count
    sth: Statement | None = None


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """Envelopes are stored durably. `st` is signed by the broker, context `accept`. wire.md §5.2.

    Body: {"at","mesh","r":[{"h": audit row hash,"id","n": audit row,"to" or "chan"}],"v":1}.
    """

    st: Statement


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """A request was refused and nothing of it took effect. wire.md §3.6.

    `rid`, or `id` with `to` or `chan`, names the request.
    """

    code: Label
    rid: RequestId | None = None
    id: Hex16 | None = None
    to: Key | None = None
    chan: Hex16 | None = None
    detail: Label = ""
    retry_after_ms: Count | None = None


NO_ENVELOPE: Final = msgspec.Raw()
"""Stands for an absent `e` or `ep`: msgspec decodes no union of Raw and None. Falsy, and left out when encoded."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mailbox row: `q` its number for `ack`, `at` when it was accepted.

    One of `e`, the `send` or `post` frame as its sender wrote it; `st`, a broker's notice (context
    `sys`); `ep`, a `PublishedEpoch`, with `slot`, this peer's slot of it.
    """

    q: int
    at: UnixMillis
    e: msgspec.Raw = NO_ENVELOPE
    st: Statement | None = None
    ep: msgspec.Raw = NO_ENVELOPE
    slot: Label = ""


class PublishedEpoch(msgspec.Struct, frozen=True):
    """What all members get of a `put_epoch`: the record, and the name of its signer's attestation."""

    st: Statement
    att: Key


class Push(Message, frozen=True, kw_only=True, tag="push"):
    """Deliver mailbox rows, leased to this link until it acknowledges them or ends. wire.md §5.3.

    `atts` holds the attestations of sessions that this link has not seen yet.
    """

    d: list[Delivery]
    atts: list[Statement] = []


class Ok(Message, frozen=True, kw_only=True, tag="ok"):
    """The request `rid` took effect. wire.md §3.6."""

    rid: RequestId


class Cards(Message, frozen=True, kw_only=True, tag="cards"):
    """The newest cards of the members asked for, where there are any. wire.md §6.5."""

    rid: RequestId
    cards: list[Statement]


class SessionPresence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One session that is connected now, as the broker says."""

    sess: SessionId
    att: Statement
    status: Status = "idle"
    sid: str = ""
    since: UnixMillis = UnixMillis(0)


class PeerPresence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One peer: its connected sessions, and when the broker last heard from it (0: never)."""

    member: PeerId
    seen: UnixMillis = UnixMillis(0)
    sessions: list[SessionPresence] = []


class Peers(Message, frozen=True, kw_only=True, tag="peers"):
    """Presence of every peer that the broker has heard from. wire.md §6.6."""

    rid: RequestId
    peers: list[PeerPresence]


class Audit(Message, frozen=True, kw_only=True, tag="audit"):
    """Audit rows (canonical JSON each) and, when `more` is false, a checkpoint of their end. wire.md §7.1."""

    rid: RequestId
    n: Count
    rows: list[str]
    more: bool = False
    cp: Statement | None = None


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """Answer to `ping`; `sth` when the head was signed anew since this link last saw it. wire.md §3.5."""

    sth: Statement | None = None


class Sys(Message, frozen=True, kw_only=True, tag="sys"):
    """What the broker says of presence: `peer_joined`, `peer_left`; no authority. wire.md §6.7.

    Body: {"at","ev","id"?,"mesh","v":1,"who"}.
    """

    st: Statement


class Closing(Message, frozen=True, kw_only=True, tag="closing"):
    """The broker closes the link, and says why. wire.md §3.7."""

    code: Label
    detail: Label = ""
    retry_after_ms: Count | None = None
    url: Annotated[str, msgspec.Meta(max_length=1_024)] | None = None


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
BrokerMessage = (
    Challenge
    | HelloAck
    | Claimed
    | Log
    | Appended
    | Accepted
    | Refused
    | Push
    | Ok
    | Cards
    | Peers
    | Audit
    | Pong
    | Sys
    | Closing
)

ACCEPT_FIELDS: dict[str, Any] = {"v": (1,), "mesh": "hex32", "at": "int", "r": list}
ACCEPT_ROW_FIELDS: dict[str, Any] = {"id": "hex16", "to": "hex32", "n": "int", "h": "hex32"}
ACCEPT_POST_ROW_FIELDS: dict[str, Any] = {"id": "hex16", "chan": "hex16", "n": "int", "h": "hex32"}
SYS_FIELDS: dict[str, Any] = {
    "v": (1,),
    "mesh": "hex32",
    "at": "int",
    "ev": ("peer_joined", "peer_left", "expired", "revoked", "mailbox_full"),
    "who": "hex32",
}
SYS_OPTIONAL: dict[str, Any] = {"id": "hex16"}
