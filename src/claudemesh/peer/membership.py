"""This peer's replica of the roster: every entry verified here, every head signed, or the mesh freezes.

The replica only ever moves to an extension of itself. Source: docs/spec/roster.md §5, §6.
"""

import asyncio
import sqlite3
from collections.abc import Collection
from typing import Any, Final, NoReturn

from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Invalid, Refused, RosterConflict, RosterRefused, Unreachable
from claudemesh.peer import events
from claudemesh.peer.config import LogPin
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal, branches, membership
from claudemesh.peer.journal.membership import Freeze
from claudemesh.peer.line import Line
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.uploading import upload_chunks
from claudemesh.peer.verifying import verify_ahead
from claudemesh.protocol import heads, limits
from claudemesh.protocol.heads import Gossip, SignedHead, Standing
from claudemesh.protocol.messages import Append, Appended, Log, Sync
from claudemesh.protocol.roster import Checked, Entry, Relation, Roster, entry_digest, sign_entry
from claudemesh.types import Digest, MeshId, PeerId, UnixMillis

MAX_APPEND_ATTEMPTS: Final = 20
MAX_SYNC_ROUNDS: Final = 64
_YIELD_EVERY: Final = 50
"""Entries applied before other tasks get a turn."""


class Membership:
    """The roster, the newest signed head, and whether the mesh is frozen."""

    def __init__(self, mesh: MeshId, pin: LogPin, journal: Journal, hub: Hub, runtime: Runtime) -> None:
        self.mesh = mesh
        self.roster = Roster()
        self.head: SignedHead | None = None
        self.head_statement: Statement | None = None
        self.frozen: Freeze | None = None
        self.changed = asyncio.Event()
        """Set whenever an entry was applied; whoever waits clears it."""
        self.gave_back = False
        """Whether the broker was given back what it lost; it lost mailboxes with it. Whoever acts on it clears it."""
        self.rejected: set[PeerId] = set()
        """Peers on a branch that a person decided against: what they send proves nothing new."""
        self._pin = pin
        self._abandoned = False
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._entries: list[Entry] = []
        self._stored = 0
        self._applying = asyncio.Lock()
        self._syncing = asyncio.Lock()

    async def load(self) -> bool:
        """Rebuild the replica from the journal; returns whether that was possible.

        A journal that was lost, damaged or put back to an older state is not believed: the roster is then
        fetched from its genesis, and must contain the head that the keystore remembers.
        """
        entries = await self._journal.read(lambda connection: membership.load_entries(connection, self.mesh))
        self.frozen = await self._journal.read(lambda connection: membership.load_freeze(connection, self.mesh))
        self.rejected = await self._journal.read(lambda connection: branches.load_rejected(connection, self.mesh))
        try:
            roster = Roster.restore(entries)
        except Invalid:
            roster = Roster()
        if not self._contains_pin(roster):
            await self._journal.write(lambda connection: membership.forget_entries(connection, self.mesh))
            return False
        self.roster, self._entries, self._stored = roster, entries, len(entries)
        statement = await self._journal.read(lambda connection: membership.load_head(connection, self.mesh))
        if statement is not None:
            self._restore_head(statement)
        return True

    @property
    def pin(self) -> LogPin:
        """What the keystore is to remember of the replica."""
        if self._abandoned or self.roster.seq < self._pin.seq:
            return self._pin
        return LogPin(self.roster.seq, self.roster.head)

    def entries(self, from_seq: int = 0) -> list[Entry]:
        """The entries from `from_seq` on, as they were signed."""
        return self._entries[from_seq:]

    def require_unfrozen(self) -> None:
        """Raise `RosterConflict` when this mesh is frozen."""
        if self.frozen is not None:
            raise RosterConflict("frozen", self.frozen.code)

    def judge(self, header: dict[str, Any], *, synced: bool) -> tuple[Gossip, SignedHead]:
        """What follows from the roster head that a message names."""
        claim = heads.claimed_head(self.mesh, header)
        return heads.judge_claim(claim, self.roster, synced=synced), claim

    # Entries and heads from a line

    async def take_log(self, log: Log) -> bool:
        """Apply the entries of a `log` that follow this replica, and its signed head.

        Returns:
            False when entries between this replica and the log are missing: a sync is needed.

        Raises:
            Invalid: An entry or the head does not verify; the entries before it were applied.
            RosterConflict: The broker contradicts itself; the mesh is frozen now.
        """
        async with self._applying:
            if log.seq > self.roster.seq + 1:
                return False
            if not await self._apply(log.seq, log.entries):
                await self.freeze("rollback", log.sth)
            if log.sth is None or log.more:
                await self._store(None)
                return True
            return await self._take_head(log.sth)

    async def take_head(self, statement: Statement) -> bool:
        """Take a signed head that came without entries; returns whether it is exactly this replica's."""
        async with self._applying:
            return await self._take_head(statement)

    async def catch_up(self, line: Line) -> None:
        """Fetch everything that is missing here, and give the broker back what is missing there.

        Raises:
            RosterConflict: The broker hides, rewrote, or will not take back what it signed; frozen now.
        """
        seen = self.roster.seq
        async with self._syncing:
            if self.roster.seq > seen:
                return  # the sync that this caller waited for was its own as well
            hidden = 0
            for _ in range(MAX_SYNC_ROUNDS):
                statement = await self._fetch(line)
                match heads.classify_head(heads.open_head(statement, self.roster), self.roster):
                    case Standing.CURRENT:
                        await self.take_head(statement)
                        return
                    case Standing.REWRITTEN:
                        await self.freeze("rollback", statement)
                    case Standing.SHORTER:
                        self.gave_back = True
                        await self._give_back(line, statement)
                    case Standing.LONGER:
                        if hidden == limits.WITHHELD_RETRIES:
                            await self.freeze("withheld", statement)
                        hidden += 1
                        await asyncio.sleep(self._retry_s())
            raise Unreachable("timeout", "the roster does not settle")

    async def confirm_withheld(self, line: Line, claim: SignedHead, sender: PeerId | None = None) -> None:
        """Give a lagging broker time to hand over a head that it signed; then freeze."""
        for _ in range(limits.WITHHELD_RETRIES):
            await asyncio.sleep(self._retry_s())
            await self.catch_up(line)
            if self.roster.seq >= claim.seq:
                return
        await self.freeze_by_claim("withheld", claim, sender)

    async def append(self, line: Line, op: str, signers: list[SigningKey], **fields: Any) -> Checked:
        """Append one entry by compare-and-swap, checked and signed anew for each head that is met.

        Raises:
            RosterRefused: The rules do not allow it; nothing was appended.
            Refused: The broker did not take it.
            Unreachable: Whether it was appended is unknown; a sync tells.
        """
        for _ in range(MAX_APPEND_ATTEMPTS):
            self.require_unfrozen()
            await self.catch_up(line)
            at = UnixMillis(max(self._runtime.now(), self.roster.at))
            entry = sign_entry(self.roster.next_body(op, at, **fields), *signers)
            checked = self.roster.check(entry, self._runtime.now())
            try:
                answer = await line.request(Append(rid=0, entries=[entry]), Appended)
            except Refused as error:
                if error.code == "cas":
                    continue
                raise
            await self._take_appended(checked, answer)
            return checked
        raise Refused("cas", "the roster is too busy")

    async def freeze(self, code: str, *proof: Statement | None) -> NoReturn:
        """Stop sending in this mesh, durably, and keep the statements that prove why."""
        if self.frozen is None and not self._abandoned:
            kept = [one for one in (self.head_statement, *proof) if one is not None]
            frozen = Freeze(code, self._runtime.now(), kept)
            await self._journal.write(lambda connection: membership.save_freeze(connection, self.mesh, frozen))
            self.frozen = frozen
            self._hub.publish(events.Frozen(code))
        raise RosterConflict(code)

    async def freeze_by_claim(self, code: str, claim: SignedHead, sender: PeerId | None = None) -> None:
        """Freeze for a head that another peer showed, with the broker's signature on it.

        Not for one of a peer whose branch was decided against: it shows nothing that a person has not seen.

        Raises:
            RosterConflict: Frozen now, or before.
        """
        if sender in self.rejected:
            return
        if sender is not None:
            now = self._runtime.now()
            await self._journal.write(lambda connection: branches.save_claim(connection, self.mesh, sender, claim, now))
        await self.freeze(code, self._claim_statement(claim))

    async def resolve(self, trusted: Digest, seq: int, *, rejected: Collection[PeerId]) -> None:
        """A person read the heads and decided: sending goes on, the proof is kept with the decision."""
        now = self._runtime.now()

        def write(connection: sqlite3.Connection) -> None:
            branches.resolve_freeze(connection, self.mesh, trusted, seq, rejected, now)

        await self._journal.write(write)
        self.frozen = None
        self.rejected = set(rejected)

    async def abandon(self, trusted: LogPin) -> None:
        """A person decided for another branch than this replica's, which is dropped.

        This object stands still afterwards; the next one fetches the roster from its genesis, and must find the
        trusted head in it.
        """
        now = self._runtime.now()

        def write(connection: sqlite3.Connection) -> None:
            branches.resolve_freeze(connection, self.mesh, Digest(trusted.head), trusted.seq, (), now)
            membership.forget_entries(connection, self.mesh)

        self._pin, self._abandoned = trusted, True
        await self._journal.write(write)

    # Private

    def _contains_pin(self, roster: Roster) -> bool:
        if roster.seq < self._pin.seq or roster.mesh != self.mesh:
            return False
        return roster.digest_at(self._pin.seq) == self._pin.head

    def _restore_head(self, statement: Statement) -> None:
        try:
            self.head = heads.open_head(statement, self.roster)
            self.head_statement = statement
        except Invalid:
            self.head = None  # of a broker that the roster has left; the next link brings another

    async def _apply(self, seq: int, entries: list[Entry]) -> bool:
        """Apply what follows; False when the broker shows another entry where this replica has one."""
        fresh = max(0, self.roster.seq + 1 - seq)
        signed = entries[:fresh] + await verify_ahead(entries[fresh:])
        for index, (entry, given) in enumerate(zip(entries, signed, strict=True)):
            at_seq = seq + index
            if at_seq <= self.roster.seq:
                if entry_digest(entry) != self.roster.digest_at(at_seq):
                    return False
                continue
            if at_seq == 0 and str(entry_digest(entry)) != self.mesh:
                raise RosterRefused("mesh", "the broker answered with another mesh")
            checked = self.roster.apply(given, self._runtime.now())
            self._entries.append(entry)
            self._announce(checked)
            if at_seq == self._pin.seq and checked.digest != self._pin.head:
                await self.freeze("rollback")
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
        return True

    def _announce(self, checked: Checked) -> None:
        body = checked.body
        self.changed.set()
        match checked.op:
            case "admit":
                self._hub.publish(events.PeerAdmitted(body["m"]["sign"], body["by"]))
            case "recover":
                self._hub.publish(events.PeerAdmitted(body["m"]["sign"], None))
            case "revoke":
                for member in self.roster.members.values():
                    if member.revoked_seq == checked.seq:
                        self._hub.publish(events.PeerRevoked(member.id))
            case "broker":
                self._hub.publish(events.BrokerMoved(body.get("url", "")))
            case _:
                pass

    async def _take_head(self, statement: Statement) -> bool:
        head = heads.open_head(statement, self.roster)
        standing = heads.classify_head(head, self.roster)
        if standing is Standing.REWRITTEN:
            await self._store(None)
            await self.freeze("rollback", statement)
        if standing is not Standing.CURRENT:
            await self._store(None)
            return False
        if self.roster.seq < self._pin.seq:
            await self.freeze("rollback", statement)  # and this replica cannot give back what it lost, too
        newer = self.head is None or (head.seq, head.at) >= (self.head.seq, self.head.at)
        await self._store(statement if newer else None)
        if newer:
            self.head, self.head_statement = head, statement
        return True

    async def _store(self, statement: Statement | None) -> None:
        """Make applied entries and a new head durable; what failed to be stored is stored with the next."""
        if self._abandoned:
            return
        first, fresh = self._stored, self._entries[self._stored :]
        if not fresh and (statement is None or statement == self.head_statement):
            return

        def write(connection: sqlite3.Connection) -> None:
            membership.append_entries(connection, self.mesh, first, fresh)
            if statement is not None:
                membership.save_head(connection, self.mesh, statement)

        await self._journal.write(write)
        self._stored = max(self._stored, first + len(fresh))

    async def _fetch(self, line: Line) -> Statement:
        """Request the suffix until the broker says that there is no more; returns its signed head."""
        while True:
            end = self.roster.seq
            log = await line.request(Sync(rid=0, seq=end + 1), Log)
            async with self._applying:
                if log.seq > self.roster.seq + 1:
                    raise RosterRefused("seq", "the broker skipped entries")
                if not await self._apply(log.seq, log.entries):
                    await self.freeze("rollback", log.sth)
                await self._store(None)
            if not log.more:
                if log.sth is None:
                    raise RosterRefused("entry_form", "a log without a signed head")
                return log.sth
            if self.roster.seq == end:
                raise RosterRefused("seq", "the broker promises entries and sends no new ones")

    async def _give_back(self, line: Line, statement: Statement) -> None:
        """The broker lost its tail: upload it; each entry proves itself."""
        head = heads.open_head(statement, self.roster)
        for chunk in upload_chunks(self.entries(head.seq + 1)):
            try:
                await line.request(Append(rid=0, entries=chunk), Appended)
            except Refused as error:
                if not error.retryable:
                    await self.freeze("rollback", statement)
                if error.code != "cas":  # otherwise another peer gives it back at the same time
                    await asyncio.sleep((error.retry_after_ms or 1_000) / 1000)
                return

    async def _take_appended(self, checked: Checked, answer: Appended) -> None:
        async with self._applying:
            if self.roster.relate(checked.seq, checked.digest) is Relation.AHEAD:
                self.roster.advance(checked)
                self._entries.append(checked.entry)
                self._announce(checked)
            if answer.sth is not None:
                await self._take_head(answer.sth)
            else:
                await self._store(None)

    def _claim_statement(self, claim: SignedHead) -> Statement:
        body = {"v": 1, "mesh": claim.mesh, "seq": claim.seq, "head": claim.head, "at": claim.at}
        return Statement(statements.encode(body).decode(), str(self.roster.broker), claim.signature)

    def _retry_s(self) -> float:
        return self._runtime.tempo.withheld_window_ms / limits.WITHHELD_RETRIES / 1000
