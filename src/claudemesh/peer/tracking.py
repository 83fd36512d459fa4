"""Who waits for what: stages of sent messages, and replies to questions."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from claudemesh.peer import events
from claudemesh.peer.events import Hub
from claudemesh.peer.journal.timeline import Recorded
from claudemesh.types import MessageId


class Tracker:
    """Turns what the journal recorded into events, and wakes who waits for that message."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[MessageId, set[asyncio.Event]] = {}
        self._readers: set[asyncio.Event] = set()
        self.asked: set[MessageId] = set()
        """Questions whose replies go to who asked, and to no other reader."""

    def record(self, recorded: Iterable[Recorded | None]) -> None:
        """Announce claims that are durable now."""
        for one in recorded:
            if one is None:
                continue
            if self._hub.is_watched:
                self._hub.publish(events.StageReached(one.message_id, one.peer, one.claim.stage, one.claim.witness))
            self.touch(one.message_id)

    def touch(self, message_id: MessageId) -> None:
        """Something of this message changed: it came further, or a reply to it arrived."""
        for changed in self._waiting.get(message_id, ()):
            changed.set()

    @contextmanager
    def waiting(self, message_id: MessageId) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a message, for as long as the block lasts."""
        changed = asyncio.Event()
        self._waiting.setdefault(message_id, set()).add(changed)
        try:
            yield changed
        finally:
            waiting = self._waiting[message_id]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[message_id]

    def touch_all(self) -> None:
        """What may be read has changed as a whole."""
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()
        self.touch_inbox()

    def touch_inbox(self) -> None:
        """Messages arrived."""
        for changed in self._readers:
            changed.set()

    @contextmanager
    def reading(self) -> Iterator[asyncio.Event]:
        """An event that is set at every arrival, for as long as the block lasts."""
        changed = asyncio.Event()
        self._readers.add(changed)
        try:
            yield changed
        finally:
            self._readers.discard(changed)
