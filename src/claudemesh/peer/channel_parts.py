"""The parts of a peer that serve its channels, built and connected in one place."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from claudemesh.peer.channel_reading import ChannelReader
from claudemesh.peer.directory import Directory
from claudemesh.peer.epochs import HISTORY_LIFETIME_MS, Epochs
from claudemesh.peer.events import ChannelsChanged, Hub
from claudemesh.peer.foundation import Foundation
from claudemesh.peer.history import HISTORY_MESSAGES, History
from claudemesh.peer.incoming import Incoming
from claudemesh.peer.journal import Journal, channels, kept_history, posts
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.judging import Judge
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.post_receiving import PostInspector
from claudemesh.peer.posting import Posting
from claudemesh.peer.receiving import Inspector
from claudemesh.peer.repairing import Repairs
from claudemesh.peer.rotating import Rotator
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.shared_history import SharedHistory
from claudemesh.peer.subscriptions import Subscriptions
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


def assemble_channels(on: Foundation, outbox_changed: Callable[[], None]) -> tuple[ChannelParts, Incoming]:
    """Build what serves channels, and the inbox that both direct messages and posts come through.

    Args:
        outbox_changed: Called when a direct message was queued.
    """
    membership, journal, runtime = on.membership, on.journal, on.runtime
    epochs = Epochs(membership, on.cards, on.keyring, journal, on.hub, runtime)
    repairs = Repairs(membership, epochs, journal, runtime)
    inspector = Inspector(membership, on.cards, on.keyring, on.sessions)
    judge = Judge(
        inspector, PostInspector(membership, on.cards, epochs), epochs, repairs, membership, on.hub, on.clock, runtime
    )
    incoming = Incoming(judge, epochs, repairs, membership, on.cards, journal, on.tracker, on.hub, runtime)
    rotator = Rotator(membership, on.cards, on.keyring, on.sessions, on.attesting, epochs, incoming, journal, runtime)
    posting = Posting(
        membership, on.keyring, on.sessions, on.attesting, epochs, rotator, journal, on.tracker, on.clock, runtime
    )

    def queued() -> None:
        outbox_changed()
        posting.wake()

    directory = Directory(membership, on.keyring, journal, on.hub, runtime, queued)
    history = History(membership, epochs, on.keyring, journal, runtime)
    shared = SharedHistory(membership, epochs, repairs, history, journal, runtime)

    def epoch_held(epoch: Digest) -> None:
        incoming.unlock(epoch)
        shared.epoch_held()

    judge.reactions.read, epochs.on_held = ChannelReader(directory, repairs, shared).read, epoch_held
    parts = ChannelParts(
        membership=membership,
        journal=journal,
        runtime=runtime,
        hub=on.hub,
        epochs=epochs,
        repairs=repairs,
        directory=directory,
        history=history,
        shared=shared,
        subscriptions=Subscriptions(membership, journal),
        rotator=rotator,
        posting=posting,
    )
    return parts, incoming
