"""Loops and cost: which messages of agents wait for a person, and what is quiet here (docs/spec/holding.md).

The rules are `protocol.loops`. Here is what they are applied to: the traffic of the last minutes, kept in memory and
rebuilt from the journal, and the decisions of this machine's person. A message is judged before its batch is recorded,
so that what is held never stands in the inbox.
"""

import hashlib
import sqlite3
from dataclasses import replace
from typing import Final, Literal, NamedTuple, get_args

from claudemesh.errors import LocalError, UsageError
from claudemesh.peer import events
from claudemesh.peer.addressing import Target
from claudemesh.peer.batch import Batch, Judged
from claudemesh.peer.events import Hub
from claudemesh.peer.grant_book import subjects_of
from claudemesh.peer.grants import Allow
from claudemesh.peer.journal import Journal, held, inbox
from claudemesh.peer.journal.held import BudgetRow
from claudemesh.peer.journal.inbox import InboxRow
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.quiet import Quiet
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.views import read_header
from claudemesh.protocol import chains, loops
from claudemesh.protocol.chains import Chain
from claudemesh.protocol.loops import Arrival, Budget, Budgets, Traffic
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, SessionId, UnixMillis

MAX_BUDGET: Final = 100_000
REMEMBERED: Final = 4_096
"""Rows of the journal that are looked at to remember what agents did lately."""
BUDGETS: Final[tuple[Budget, ...]] = get_args(Budget)
_OF_SENDER: Final = ("hops", "pair")
"""Budgets that may differ from peer to peer; the others are about a session of ours."""


class BudgetView(NamedTuple):
    """One budget as it holds: for everybody, or for one peer or user."""

    name: Budget
    amount: int
    subject: str
    """Key of the peer or user; empty for everybody."""
    is_decided: bool
    """False: it is the default."""


class Holding:
    """What agents may cause at one peer."""

    def __init__(self, membership: Membership, keyring: Keyring, journal: Journal, hub: Hub, runtime: Runtime) -> None:
        self._membership = membership
        self._keyring = keyring
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._traffic = Traffic()
        self._budgets: dict[str, dict[str, int]] = {}
        self._judged: list[Arrival] = []
        self.quiet = Quiet()

    async def load(self) -> None:
        """Read the decisions, and what agents did lately."""
        mesh, since = self._membership.mesh, UnixMillis(self._runtime.now() - loops.WINDOW_MS)
        quiet, budgets, rows, sent = await self._journal.read(
            lambda c: (
                held.load_quiet(c, mesh),
                held.load_budgets(c, mesh),
                inbox.load_since(c, mesh, since, REMEMBERED),
                held.load_sent(c, mesh, REMEMBERED),
            )
        )
        self.quiet = Quiet.of(quiet)
        self._replace(budgets)
        self._traffic = Traffic()
        for row in rows:
            self._remember(row)
        for one in sent:
            by_agent = one.hop is not None and one.at > since
            to = one.peer or loops.EVERYBODY
            loops.send(self._traffic, one.root or one.id, to, one.session, one.at, by_agent=by_agent)

    # What arrives

    def hold(self, batch: Batch, now: UnixMillis) -> None:
        """Mark what is to be held of a batch that is about to be recorded, and remember the rest."""
        batch.quiet = self.quiet
        self._judged.clear()
        for index, judged in enumerate(batch.judged):
            arrival = _arrival_of(judged)
            if arrival is None:
                continue
            found = loops.judge(self._traffic, arrival, self._keyring.member, self.budgets_of(arrival.sender), now)
            if found is None:
                loops.take(self._traffic, arrival, now)
                self._judged.append(arrival)
            else:
                batch.judged[index] = replace(judged, hold=found)

    def unhold(self, now: UnixMillis) -> None:
        """The batch was not recorded: it arrives again, and must not look like a repetition then."""
        for arrival in self._judged:
            loops.untake(self._traffic, arrival, now)
        self._judged.clear()

    # What is sent

    def require_may_send(self, session: SessionId | None, *, by_person: bool) -> None:
        """Require that a message may leave now.

        Raises:
            LocalError: `paused` or `budget_spent`; nothing was sent.
        """
        if by_person:
            return
        if self.quiet.paused_since:
            raise LocalError("paused", f"the mesh {self._keyring.keys.alias} is paused")
        budgets = self.budgets_of(loops.EVERYBODY)
        if session is not None and not loops.may_send(self._traffic, session, budgets, self._runtime.now()):
            minutes = loops.WINDOW_MS // 60_000
            raise LocalError("budget_spent", f"this session sent {budgets.sends} messages in {minutes} minutes")

    def agents_may_send(self) -> bool:
        """Whether what agents wrote leaves the outbox now."""
        return not self.quiet.paused_since

    def note_sent(
        self, message_id: MessageId, chain: Chain | None, peers: tuple[PeerId, ...], session: SessionId | None
    ) -> None:
        """A text of ours goes to these peers, or with none to a channel."""
        now, root = self._runtime.now(), chain.root if chain is not None else message_id
        for peer in peers or (loops.EVERYBODY,):
            loops.send(self._traffic, root, peer, session, now, by_agent=chain is not None)

    # What a person decides

    async def set_quiet(self, kind: Literal["paused", "dnd"], on: bool) -> None:
        """Begin or end a quiet; it outlives the process."""
        mesh, since = self._membership.mesh, self._runtime.now() if on else None
        self.quiet = Quiet.of(await self._journal.write(lambda c: _set_quiet(c, mesh, kind, since)))
        self._hub.publish(events.QuietChanged(bool(self.quiet.paused_since), bool(self.quiet.dnd_since)))

    async def decide(self, name: Budget, amount: int | None, target: Target | None) -> None:
        """Set a budget, or with None let the wider one hold again.

        Args:
            target: For whom; None for everybody.

        Raises:
            UsageError: The amount is none, or the budget is not about a sender.
        """
        if amount is not None and not 0 <= amount <= MAX_BUDGET:
            raise UsageError("usage", f"a budget is a number from 0 to {MAX_BUDGET}")
        if target is not None and name not in _OF_SENDER:
            raise UsageError("usage", f"the budget {name} is about a session of yours, not about a sender")
        mesh, now = self._membership.mesh, self._runtime.now()
        subjects = ("",) if target is None else subjects_of(target)

        def write(connection: sqlite3.Connection) -> list[BudgetRow]:
            for subject in subjects:
                if amount is None:
                    held.drop_budgets(connection, mesh, subject, name)
                else:
                    held.save_budgets(connection, mesh, [BudgetRow(subject, name, amount)], now)
            return held.load_budgets(connection, mesh)

        self._replace(await self._journal.write(write))

    def budgets(self) -> list[BudgetView]:
        """Every budget that holds for everybody, then those that differ."""
        general = self._budgets.get("", {})
        defaults: dict[str, int] = Budgets()._asdict()
        views = [BudgetView(name, (defaults | general)[name], "", name in general) for name in BUDGETS]
        for subject, decided in self._budgets.items():
            if subject:
                views += [BudgetView(name, decided[name], subject, True) for name in BUDGETS if name in decided]
        return views

    def budgets_of(self, peer: PeerId) -> Budgets:
        """What holds for a peer: its own, then its user's, then everybody's."""
        if not self._budgets:
            return _DEFAULTS
        member = self._membership.roster.members.get(peer)
        user = member.user if member is not None else ""
        decided: dict[str, int] = {}
        for subject in dict.fromkeys(("", user, peer)):
            decided |= self._budgets.get(subject, {})
        return Budgets(**decided)

    def keep_house(self) -> None:
        """Forget what lies too far back to count."""
        loops.prune(self._traffic, self._runtime.now())

    # Private

    def _replace(self, rows: list[BudgetRow]) -> None:
        self._budgets.clear()
        for row in rows:
            self._budgets.setdefault(row.subject, {})[row.name] = row.amount

    def _remember(self, row: InboxRow) -> None:
        header, text = read_header(row.frame)
        chain = chains.read({"id": row.message_id, "root": header.root, "hop": header.hop})
        if chain is not None and row.teller is None:
            digest = _digest(text, row.channel)
            arrival = Arrival(row.message_id, row.sender, row.session, chain, header.intent, digest)
            loops.take(self._traffic, arrival, row.received_at)


_DEFAULTS: Final = Budgets()


def _arrival_of(judged: Judged) -> Arrival | None:
    """A text that this machine takes and that is not a person's; None for everything else."""
    message, header = judged.message, judged.message.header
    if not isinstance(judged.content, str) or not isinstance(judged.permit, Allow):
        return None
    chain = chains.read(header)
    if chain is None:
        return None
    digest = _digest(message.opened.body, message.channel)
    return Arrival(message.message_id, message.sender, header.get("tos"), chain, header.get("intent"), digest)


def _set_quiet(
    connection: sqlite3.Connection, mesh: MeshId, kind: str, since: UnixMillis | None
) -> dict[str, UnixMillis]:
    held.save_quiet(connection, mesh, kind, since)
    return held.load_quiet(connection, mesh)


def _digest(text: bytes, channel: ChannelId | None) -> bytes:
    return hashlib.blake2b(text, digest_size=16, key=(channel or "").encode()).digest()
