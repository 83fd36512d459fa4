"""What a peer tells whoever watches it, as facts in the past tense."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from claudemesh.protocol.delivery import Stage, Witness
from claudemesh.types import ChannelId, Digest, InviteId, MessageId, PeerId, SessionId

MAX_WAITING_EVENTS: Final = 1_024
"""A watcher that is slower than this loses the oldest events and is told how many."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The link is open, the roster synced."""

    url: str
    queued: int
    """Envelopes that waited at the broker."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is lost or could not be opened; it is dialled again after `retry_in_ms`."""

    code: str
    detail: str
    retry_in_ms: int


@dataclass(frozen=True, slots=True)
class StageReached:
    """A message of ours came further at `peer`, by the word of `witness`."""

    message_id: MessageId
    peer: PeerId | ChannelId
    """The recipient; of a post, also the channel itself."""
    stage: Stage
    witness: Witness
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MessageArrived:
    """A message is in the inbox, as row `number`."""

    number: int
    message_id: MessageId
    sender: PeerId
    session: SessionId | None
    reply_to: MessageId | None
    priority: str
    channel: ChannelId | None = None


@dataclass(frozen=True, slots=True)
class MessageHeld:
    """A message of an agent waits for a person (docs/spec/holding.md); no reader gets it before."""

    message_id: MessageId
    sender: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class QuietChanged:
    """A person paused or resumed the mesh here, or said whether agents may be disturbed."""

    is_paused: bool
    is_dnd: bool


@dataclass(frozen=True, slots=True)
class GapNoticed:
    """Messages of a sender were numbered but have not arrived (yet)."""

    sender: PeerId
    missing: int
    channel: ChannelId | None = None


@dataclass(frozen=True, slots=True)
class EnvelopeRefused:
    """An envelope was refused for good, with a code of docs/spec/errors.md."""

    code: str
    sender: str


@dataclass(frozen=True, slots=True)
class PeerAdmitted:
    """The roster admitted a peer, by which invite."""

    peer: PeerId
    invite: InviteId | None


@dataclass(frozen=True, slots=True)
class PeerRevoked:
    """The roster removed a peer."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class ChannelsChanged:
    """A channel was made or named, or its membership changed."""


@dataclass(frozen=True, slots=True)
class EpochHeld:
    """A secret of a channel's scope is here: what waited for it is opened."""

    scope: ChannelId
    epoch: Digest


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """The broker says that a peer came or went."""

    peer: PeerId
    online: bool


@dataclass(frozen=True, slots=True)
class NameAmbiguous:
    """Two users bear one name: it addresses nobody until a key prefix is used."""

    name: str


@dataclass(frozen=True, slots=True)
class Frozen:
    """The broker contradicted itself: nothing more is sent in this mesh."""

    code: str


@dataclass(frozen=True, slots=True)
class CloneSuspected:
    """Somebody published a card of this peer that this device never issued: its keys run twice."""

    number: int


@dataclass(frozen=True, slots=True)
class HeadStale:
    """The link is open, and for so long the broker has signed no head: it may hold entries of the roster back."""

    age_ms: int


@dataclass(frozen=True, slots=True)
class BrokerMoved:
    """The owner moved the mesh to another broker."""

    url: str


@dataclass(frozen=True, slots=True)
class AuditContradicted:
    """The broker's audit log lacks or alters what it acknowledged."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """This watcher was too slow and lost events."""

    count: int


Event = (
    LinkUp
    | LinkDown
    | StageReached
    | MessageArrived
    | MessageHeld
    | QuietChanged
    | GapNoticed
    | EnvelopeRefused
    | PeerAdmitted
    | PeerRevoked
    | ChannelsChanged
    | EpochHeld
    | PresenceChanged
    | NameAmbiguous
    | Frozen
    | CloneSuspected
    | HeadStale
    | BrokerMoved
    | AuditContradicted
    | EventsDropped
)


class Watch:
    """One watcher's view of the events from the moment it was made."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING_EVENTS)
        self._arrived = asyncio.Event()
        self._dropped = 0
        self._closed = False

    def put(self, event: Event) -> None:
        """Add an event; the oldest goes when there is no room."""
        if len(self._waiting) == MAX_WAITING_EVENTS:
            self._dropped += 1
        self._waiting.append(event)
        self._arrived.set()

    def close(self) -> None:
        """No event will follow."""
        self._closed = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._waiting or self._dropped:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    yield EventsDropped(dropped)
                yield self._waiting.popleft()
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()


class Hub:
    """Hands each event to every watcher."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._closed = False

    @property
    def is_watched(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._watches)

    def publish(self, event: Event) -> None:
        """Tell every watcher; never waits."""
        for watch in self._watches:
            watch.put(event)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch for as long as the block lasts."""
        watch = Watch()
        self._watches.add(watch)
        if self._closed:
            watch.close()
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def close(self) -> None:
        """End every watcher's iteration."""
        self._closed = True
        for watch in self._watches:
            watch.close()
