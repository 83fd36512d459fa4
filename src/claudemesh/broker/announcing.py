"""What follows when a roster has moved: open links are told, those of removed peers end (docs/spec/broker.md §3)."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from claudemesh.broker.directory import Mesh, encode_statement
from claudemesh.broker.policy import Limits
from claudemesh.broker.pushing import log_frame
from claudemesh.broker.subscriptions import is_member
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import limits
from claudemesh.protocol.messages import Closing
from claudemesh.protocol.roster import Entry
from claudemesh.transport.frames import POLICY_VIOLATION
from claudemesh.types import BrokerId, ChannelId, PeerId, UnixMillis

ANNOUNCE_DELAY_S: Final = 0.01
"""Entries that are appended this close together are announced in one frame."""
MOVE_GRACE_MS: Final = 30_000
"""How long a link of a mesh that has moved may go on fetching its mailbox."""

_encode_entry: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Change:
    """What new entries of a roster did, for those who have to act on it."""

    mesh: Mesh
    removed: tuple[PeerId, ...] = ()
    """Peers that are not active any more."""
    left: tuple[tuple[PeerId, ChannelId], ...] = ()
    """Peers that are not in a channel any more."""


class Changing:
    """Compares a roster before and after some entries."""

    def __init__(self, mesh: Mesh, entries: Sequence[Entry]) -> None:
        """Look at the roster before `entries`."""
        self._mesh = mesh
        self._entries = entries
        before = set(mesh.roster.members) if _removes(entries) else set()
        self._active = {peer for peer in before if mesh.roster.is_active(peer)}

    def result(self) -> Change:
        """Look at it after them."""
        roster = self._mesh.roster
        removed = tuple(peer for peer in self._active if not roster.is_active(peer))
        left = tuple(pair for pair in _departures(self._entries) if not is_member(roster, pair[1], pair[0]))
        return Change(self._mesh, removed, left)


class Announcer:
    """Tells open links."""

    def __init__(
        self,
        key: SigningKey,
        clock: Callable[[], UnixMillis],
        limits: Limits,
        on_change: Callable[[Change], None],
        *,
        alone: bool,
    ) -> None:
        """`alone` says that this process signs heads anew by itself: there is no other one that could sign another."""
        self._key = key
        self._broker = BrokerId(key.public)
        self._clock = clock
        self._limits = limits
        self._on_change = on_change
        self._alone = alone

    def head(self, mesh: Mesh) -> Statement:
        """The signed head, not older than a minute while a mesh has links."""
        if self._alone or not mesh.serves(self._broker):
            return mesh.signed_head(self._key, self._clock(), self._limits.head_interval_ms)
        return mesh.kept_head()

    def announce(self, mesh: Mesh, entries: Sequence[Entry], change: Change) -> None:
        """Tell open links of the last entries of a roster, soon; and act on what they changed, now."""
        if not mesh.unannounced:
            asyncio.get_running_loop().call_later(ANNOUNCE_DELAY_S, self._tell, mesh)
        mesh.unannounced += [_encode_entry(entry) for entry in entries]
        self._on_change(change)

    def _tell(self, mesh: Mesh) -> None:
        raws, mesh.unannounced = mesh.unannounced, []
        if not mesh.links:
            return
        head = self.head(mesh)
        frames = _split(mesh.roster.seq - len(raws) + 1, raws, encode_statement(head))
        for link in list(mesh.links.values()):
            for frame in frames:
                link.outlet.write(frame)
            link.seen_head = head
        if mesh.has_moved(self._broker):
            self._leave(mesh)

    def _leave(self, mesh: Mesh) -> None:
        """Every link of a mesh that has moved ends, as soon as its mailbox is empty."""
        for link in list(mesh.links.values()):
            link.leaving_at = UnixMillis(self._clock() + MOVE_GRACE_MS)
        self._on_change(Change(mesh))


def close_removed(change: Change) -> None:
    """End the links of peers that were revoked."""
    for link in list(change.mesh.links.values()):
        if link.peer in change.removed:
            link.close(Closing(code="revoked"), POLICY_VIOLATION, audit_reason="revoked")


def _split(seq: int, raws: Sequence[bytes], sth: bytes) -> list[bytes]:
    frames = []
    for start in range(0, len(raws), limits.MAX_ENTRIES_PER_FRAME):
        page = raws[start : start + limits.MAX_ENTRIES_PER_FRAME]
        more = start + len(page) < len(raws)
        frames.append(log_frame(seq + start, page, None, more, None if more else sth))
    return frames


def _removes(entries: Sequence[Entry]) -> bool:
    return any('"op":"revoke"' in entry.b or '"op":"recover"' in entry.b for entry in entries)


def _departures(entries: Sequence[Entry]) -> list[tuple[PeerId, ChannelId]]:
    bodies = [msgspec.json.decode(entry.b) for entry in entries if '"op":"chan_del"' in entry.b]
    return [(PeerId(body["who"]), ChannelId(body["chan"])) for body in bodies]
