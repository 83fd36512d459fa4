"""The epochs that this peer holds, in memory and in the journal (docs/spec/channels.md §2, §3, §7).

A secret is in the journal before anything is sent or opened under it.
"""

import sqlite3
from collections.abc import Callable, Container
from typing import Final

from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Statement
from claudemesh.errors import EnvelopeRefused
from claudemesh.peer import events
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import epochs as rows
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.receiving import Forked, Held, Missing
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits
from claudemesh.protocol.epochs import EpochBook, HeldEpoch, check_record
from claudemesh.protocol.heads import Gossip
from claudemesh.protocol.message_rules import Unsettled
from claudemesh.protocol.messages import PublishedEpoch
from claudemesh.types import ChannelId, Digest, PeerId

HISTORY_LIFETIME_MS: Final = 30 * limits.DAY_MS
"""How long received posts are kept, at most."""
EPOCH_RETENTION_MS: Final = limits.EPOCH_MAX_MS + HISTORY_LIFETIME_MS
"""As long as a post under it may be in somebody's history."""
MAX_EPOCHS_PER_SCOPE: Final = 1_000
SLOT_CODES: Final = frozenset({"no_slot", "stale_key", "b64", "box_open", "epoch_commit"})
"""The record was good and only this peer's slot was not: the secret is worth asking for."""


class Epochs:
    """What this peer can read, and of each scope what it may write under."""

    def __init__(
        self,
        membership: Membership,
        cards: CardDirectory,
        keyring: Keyring,
        journal: Journal,
        hub: Hub,
        runtime: Runtime,
    ) -> None:
        self._membership = membership
        self._cards = cards
        self._keyring = keyring
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._scopes: set[ChannelId] = set()
        self.book = EpochBook()
        self.on_held: Callable[[Digest], None] = lambda _epoch: None
        """Told of every new epoch; set where the peer is composed."""

    async def load(self) -> None:
        """Read what is held from the journal."""
        mesh = self._membership.mesh
        for held in await self._journal.read(lambda connection: rows.load_held(connection, mesh)):
            self._keep(held)

    @property
    def scopes(self) -> frozenset[ChannelId]:
        """The scopes of which any epoch is held."""
        return frozenset(self._scopes)

    def find(self, epoch: str) -> HeldEpoch | None:
        """The epoch of that id, for reading."""
        return self.book.find(epoch)

    def usable(self, scope: ChannelId) -> HeldEpoch | None:
        """The epoch to send under now, or None when a new one must be made: the send rule."""
        return self.book.usable(self._membership.roster, scope, self._runtime.now(), self._cards.ended)

    def hold(self, held: HeldEpoch) -> None:
        """An epoch is durable: read with it, and what waited for it."""
        if not self._keep(held):
            return
        self.on_held(held.id)
        self._hub.publish(events.EpochHeld(held.record.scope, held.id))

    def inspect(
        self, published: PublishedEpoch, attestation: Attestation, slot: str, *, synced: bool
    ) -> HeldEpoch | Held | Forked:
        """Check a record that was delivered and open our slot of it; raises as `check_record`."""
        checked = check_record(
            published.st,
            attestation,
            slot,
            self._keyring.box_secrets,
            self._membership.roster,
            self._runtime.now(),
            synced=synced,
        )
        if isinstance(checked, Unsettled):
            return unsettled(checked, attestation.member, self._membership.rejected)
        return checked

    async def forget_old(self) -> None:
        """Delete the secrets that nothing is read with any more."""
        kept: list[HeldEpoch] = []
        dropped: list[Digest] = []
        before = self._runtime.now() - EPOCH_RETENTION_MS
        for scope in self._scopes:
            newest = sorted(self.book.of_scope(scope), key=lambda held: -held.received_at)
            for index, held in enumerate(newest):
                if index < MAX_EPOCHS_PER_SCOPE and held.received_at >= before:
                    kept.append(held)
                else:
                    dropped.append(held.id)
        if not dropped:
            return
        mesh = self._membership.mesh
        await self._journal.write(lambda connection: rows.drop(connection, mesh, dropped))
        self.book = EpochBook(kept)

    def save(self, connection: sqlite3.Connection, held: HeldEpoch, statement: Statement | None) -> None:
        """Write an epoch in a running transaction; `hold` follows when that is committed."""
        rows.save(connection, self._membership.mesh, held, statement, None)

    def _keep(self, held: HeldEpoch) -> bool:
        self._scopes.add(held.record.scope)
        return self.book.hold(held)


def unsettled(verdict: Unsettled, sender: PeerId, rejected: Container[PeerId]) -> Held | Forked:
    """What to do with a message or epoch whose roster head has to be settled first.

    Args:
        rejected: Peers on a branch of the roster that a person decided against.

    Raises:
        EnvelopeRefused: `other_branch`; the sender is one of them, and on that branch still.
    """
    if sender in rejected and verdict.verdict is not Gossip.SYNC:
        raise EnvelopeRefused("other_branch")
    match verdict.verdict:
        case Gossip.SYNC:
            return Held(Missing.ROSTER, sender, verdict.claim)
        case Gossip.FORK:
            assert verdict.claim is not None
            return Forked(verdict.claim, sender)
        case _:
            return Held(Missing.PROOF, sender, verdict.claim)
