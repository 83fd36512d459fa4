"""What a broker says to a peer (docs/spec/wire.md, one section each)."""

from typing import Annotated, Final, Literal

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol.messages.base import Count, Hex16, Key, Label, Message, Moment, RequestId, Status
from claudemesh.protocol.roster import Entry
from claudemesh.types import PeerId, SessionId, UnixMillis


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

    q: Count
    at: Moment
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
    atts: list[Statement] = msgspec.field(default_factory=list)


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
    since: Moment = UnixMillis(0)


class PeerPresence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One peer: its connected sessions, and when the broker last heard from it (0: never)."""

    member: PeerId
    seen: Moment = UnixMillis(0)
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
