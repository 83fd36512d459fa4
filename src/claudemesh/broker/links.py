"""One open link as the broker's use cases see it: where to write, what is unacknowledged, what it has seen."""

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from claudemesh.broker.policy import Limits, TokenBucket
from claudemesh.broker.store.base import LinkId
from claudemesh.protocol.codec import encode_message
from claudemesh.protocol.messages import Closing, Message
from claudemesh.transport.frames import NORMAL, CloseCode
from claudemesh.types import MeshId, PeerId, SessionId, UnixMillis

MAX_SEEN_ATTESTATIONS: Final = 4_096


class Outlet(Protocol):
    """Where frames of one link go. Nothing here waits: what the far side does not read is buffered."""

    def write(self, frame: bytes) -> None:
        """Write one frame; does nothing once the link is closing."""

    def buffered(self) -> int:
        """Bytes that the far side has not taken yet."""

    def close(self, code: CloseCode) -> None:
        """Close after what was written."""

    def vouch(self) -> None:
        """The far side has proven who it is: frames of any size may come from now on."""


class AcceptedRow(msgspec.Struct, frozen=True, gc=False):
    """One envelope of an `accepted` statement; the fields stand in canonical order."""

    h: str
    id: str
    n: int
    to: str


class AcceptedPostRow(msgspec.Struct, frozen=True, gc=False):
    """One post of an `accepted` statement; the fields stand in canonical order."""

    chan: str
    h: str
    id: str
    n: int


class Window:
    """What is pushed over a link, or about to be, and not acknowledged yet."""

    __slots__ = ("_bytes", "_max_bytes", "_max_rows", "_reserved", "_rows")

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._rows: dict[int, int] = {}
        self._reserved = 0
        self._bytes = 0
        self._max_rows = max_rows
        self._max_bytes = max_bytes

    def room(self) -> int:
        """How many more rows may be leased."""
        if self._bytes >= self._max_bytes:
            return 0
        return self._max_rows - self._reserved - len(self._rows)

    def reserve(self, size: int) -> None:
        """Keep room for an envelope whose commit is under way."""
        self._reserved += 1
        self._bytes += size

    def cancel(self, size: int) -> None:
        """Give the room of `reserve` back."""
        self._reserved -= 1
        self._bytes -= size

    def fill(self, q: int, size: int) -> None:
        """Turn a reservation into a push."""
        self._reserved -= 1
        self._rows[q] = size

    def add(self, q: int, size: int) -> None:
        """Count a push that was not reserved; one that is repeated counts once."""
        self._bytes += size - self._rows.get(q, 0)
        self._rows[q] = size

    def acknowledge(self, qs: list[int]) -> list[int]:
        """Forget those of `qs` that were pushed and return them."""
        known = []
        for q in qs:
            size = self._rows.pop(q, None)
            if size is not None:
                self._bytes -= size
                known.append(q)
        return known

    def __len__(self) -> int:
        return self._reserved + len(self._rows)


@dataclass(slots=True, eq=False)
class Link:
    """An open link of one member. Only its own server task and the loop's callbacks touch it."""

    id: LinkId
    mesh: MeshId
    peer: PeerId
    session: SessionId
    outlet: Outlet
    window: Window
    messages: TokenBucket
    requests: TokenBucket
    heard_at: UnixMillis
    audit_reason: str = "lost"
    """Why it ended, for the audit log."""
    closed: bool = False
    silent: bool = False
    """It ended because its presence lease ran out."""
    leaving_at: UnixMillis | None = None
    """The mesh has moved: the link ends when its mailbox is drained, or at this time."""
    seen_attestations: set[str] | None = None
    """Digests of the attestations that were pushed over it."""
    seen_head: object = None
    """The signed head that was sent last."""
    unanswered: int = 0
    """Envelopes submitted over it that are neither stored nor refused yet."""
    accepted: list[AcceptedRow | AcceptedPostRow] | None = None
    """Envelopes that are stored, and not yet stated to be."""
    sessions: int = 1
    is_restricted: bool = False
    """Its session does not speak for the whole peer: the peer's mailbox is not its to fetch."""

    def send(self, message: Message) -> None:
        """Write one message."""
        self.outlet.write(encode_message(message))

    def close(self, closing: Closing, code: CloseCode = NORMAL, audit_reason: str | None = None) -> None:
        """Say why, and close."""
        if self.closed:
            return
        if audit_reason is not None:
            self.audit_reason = audit_reason
        self.send(closing)
        self.closed = True
        self.outlet.close(code)

    def unseen(self, digests: set[str]) -> set[str]:
        """Those attestations that have to be pushed first; they count as seen from now on."""
        seen = self.seen_attestations
        if seen is None or len(seen) > MAX_SEEN_ATTESTATIONS:
            seen = self.seen_attestations = set()
        new = digests - seen
        seen |= new
        return new


def open_window(limits: Limits) -> Window:
    """The window of a new link."""
    return Window(limits.unacknowledged_pushes, limits.unacknowledged_bytes)
