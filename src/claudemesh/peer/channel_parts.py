"""The parts of a peer that serve its channels, built and connected in one place."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from claudemesh.peer.attesting import Attesting
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.channel_reading import ChannelReader
from claudemesh.peer.directory import Directory
from claudemesh.peer.epochs import HISTORY_LIFETIME_MS, Epochs
from claudemesh.peer.events import ChannelsChanged, Hub
from claudemesh.peer.history import HISTORY_MESSAGES, History
from claudemesh.peer.incoming import Incoming
from claudemesh.peer.journal import Journal, channels, kept_history, posts
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.judging import Judge
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Line
from claudemesh.peer.link_clock import LinkClock
from claudemesh.peer.membership import Membership
from claudemesh.peer.post_receiving import PostInspector
from claudemesh.peer.posting import Posting
from claudemesh.peer.receiving import Inspector
from claudemesh.peer.repairing import Repairs
from claudemesh.peer.rotating import Rotator
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Sessions
from claudemesh.peer.shared_history import SharedHistory
from claudemesh.peer.subscriptions import Subscriptions
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import limits
from claudemesh.types import Digest, UnixMillis


@dataclass(slots=True)
class ChannelParts:
    """Everything that channels add to a peer."""

    membership: Membership
    journal: Journal
    runtime: Runtime
    hub: Hub
    epochs: Epochs
    repairs: Repairs
    directory: Directory
    history: History
    shared: SharedHistory
    subscriptions: Subscriptions
    rotator: Rotator
    posting: Posting

    async def load(self) -> None:
        """Read everything that outlives the process from the journal; the roster is loaded."""
        await self.epochs.load()
        await self.repairs.load()
        await self.directory.load()
        await self.subscriptions.load()
        await self.shared.load()

    async def serve(self, line: Line) -> None:
        """Work for as long as a link is open."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.subscriptions.tell(line))
            group.create_task(self.shared.run())
            group.create_task(self.posting.run(line))

    def roster_changed(self) -> None:
        """Members came or went: names may have to be told, posts to be sealed anew."""
        self.directory.announce()
        self.posting.wake()
        self.hub.publish(ChannelsChanged())

    async def submit_again(self) -> None:
        """The broker lost its store: posts that nobody confirmed go out again, where the membership is the same."""
        mesh = self.membership.mesh
        usable = [epoch.id for scope in self.epochs.scopes if (epoch := self.epochs.usable(scope)) is not None]
        await self.journal.write(lambda connection: posts.requeue_undelivered(connection, mesh, usable))

    async def keep_house(self) -> None:
        """Delete what may not be kept: old secrets, old posts, questions that nobody will answer."""
        mesh, now = self.membership.mesh, self.runtime.now()
        waiting_since = UnixMillis(now - limits.QUEUE_LIFETIME_MS)
        history_since = UnixMillis(now - HISTORY_LIFETIME_MS)

        def write(connection: sqlite3.Connection) -> None:
            channels.drop_expired_windows(connection, mesh, now)
            channels.trim_history(connection, mesh, HISTORY_MESSAGES, history_since)
            posts.purge_internal(connection, mesh, waiting_since)
            epoch_rows.drop_old(connection, mesh, waiting_since)
            kept_history.drop_old(connection, mesh, waiting_since)

        await self.journal.write(write)
        await self.epochs.forget_old()


@dataclass(frozen=True, slots=True)
class Foundation:
    """The parts of a peer that its channels stand on."""

    membership: Membership
    cards: CardDirectory
    keyring: Keyring
    sessions: Sessions
    attesting: Attesting
    journal: Journal
    tracker: Tracker
    hub: Hub
    clock: LinkClock
    runtime: Runtime
    inspector: Inspector
    outbox_changed: Callable[[], None]


def assemble_channels(on: Foundation) -> tuple[ChannelParts, Incoming]:
    """Build what serves channels, and the inbox that both direct messages and posts come through."""
    epochs = Epochs(on.membership, on.cards, on.keyring, on.journal, on.hub, on.runtime)
    repairs = Repairs(on.membership, epochs, on.journal, on.runtime)
    inspector = PostInspector(on.membership, on.cards, epochs)
    judge = Judge(on.inspector, inspector, epochs, repairs, on.membership, on.hub, on.clock, on.runtime)
    incoming = Incoming(
        judge,
        epochs,
        repairs,
        on.membership,
        on.cards,
        on.journal,
        on.tracker,
        on.hub,
        on.runtime,
    )
    rotator = Rotator(
        on.membership, on.cards, on.keyring, on.sessions, on.attesting, epochs, incoming, on.journal, on.runtime
    )
    posting = Posting(
        on.membership,
        on.keyring,
        on.sessions,
        on.attesting,
        epochs,
        rotator,
        on.journal,
        on.tracker,
        on.clock,
        on.runtime,
    )

    def outbox_changed() -> None:
        on.outbox_changed()
        posting.wake()

    directory = Directory(on.membership, on.keyring, on.journal, on.hub, on.runtime, outbox_changed)
    history = History(on.membership, epochs, on.keyring, on.journal, on.runtime)
    shared = SharedHistory(on.membership, epochs, repairs, history, on.journal, on.runtime)
    judge.reactions.read = ChannelReader(directory, repairs, shared).read

    def epoch_held(epoch: Digest) -> None:
        incoming.unlock(epoch)
        shared.epoch_held()

    epochs.on_held = epoch_held
    parts = ChannelParts(
        on.membership,
        on.journal,
        on.runtime,
        on.hub,
        epochs,
        repairs,
        directory,
        history,
        shared,
        Subscriptions(on.membership, on.journal),
        rotator,
        posting,
    )
    return parts, incoming
