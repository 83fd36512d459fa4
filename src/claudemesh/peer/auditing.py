"""Checking the broker's audit log in the background, against what the broker acknowledged (docs/spec/audit.md §4)."""

import asyncio
import sqlite3
from functools import partial
from typing import Final

from claudemesh.crypto import statements
from claudemesh.errors import AuditConflict, Invalid
from claudemesh.peer import events
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import membership as rows
from claudemesh.peer.journal.membership import AuditFinding
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import audit_view
from claudemesh.protocol.audit_rows import row_hash
from claudemesh.protocol.audit_view import AuditView
from claudemesh.protocol.link import Opened
from claudemesh.protocol.messages import Audit, GetAudit
from claudemesh.types import BrokerId, Digest

PAGE_PAUSE_S: Final = 0.25
"""Between pages of 500 rows (about 50 ms each), so that a long log takes a fifth of one core at most."""


class Auditor:
    """Follows the audit log of one mesh; what it finds is kept with its proof."""

    def __init__(self, membership: Membership, journal: Journal, hub: Hub, runtime: Runtime) -> None:
        self._membership = membership
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._view = AuditView()
        self._due_at: int | None = None
        self.finding: AuditFinding | None = None
        """The first contradiction, until the mesh moves to another broker."""

    async def load(self) -> None:
        """Read how far the log was verified."""
        mesh = self._membership.mesh
        view, self.finding = await self._journal.read(
            lambda c: (rows.load_audit_view(c, mesh), rows.load_audit_finding(c, mesh))
        )
        self._view = view or AuditView()

    async def begin_link(self, opened: Opened) -> bool:
        """Compare the end of the log that a broker signs when a link opens; False when it lost part of its log."""
        mesh = self._membership.mesh
        beyond = await self._journal.read(lambda c: rows.count_audit_receipts_from(c, mesh, opened.audit_n))
        if opened.audit_n < self._view.n or beyond:
            await self._find(AuditConflict("audit_truncated", f"it ends at {opened.audit_n}"))
            await self._journal.write(lambda c: rows.restart_audit_view(c, mesh))
            self._view = AuditView()
            return False
        if opened.audit_n == self._view.n and opened.audit_head != self._view.head:
            await self._find(AuditConflict("audit_checkpoint", f"row {opened.audit_n}"))
        return True

    def forget(self) -> None:
        """The mesh has another broker now, with a log of its own."""
        self._view, self.finding = AuditView(), None

    async def run(self, line: Line) -> None:
        """Check now and then while a link is open; many peers of one broker not at the same moment."""
        while self.finding is None:
            now = self._runtime.now()
            if self._due_at is None:
                self._due_at = now + int(self._runtime.tempo.audit_ms * (1 + self._runtime.jitter()) / 2)
            await asyncio.sleep(max(self._due_at - now, 0) / 1000)
            await self.check(line)
            self._due_at = None

    async def check(self, line: Line) -> None:
        """Fetch and verify what was added since the last check."""
        try:
            await self._check(line)
        except (AuditConflict, Invalid) as error:
            await self._find(error)

    async def _check(self, line: Line) -> None:
        mesh, view = self._membership.mesh, self._view
        # Read before the log is asked for: whatever was acknowledged until then has to be in it.
        owed = await self._journal.read(lambda connection: rows.last_audit_receipt(connection, mesh))
        late = await self._journal.read(lambda connection: rows.first_audit_receipt(connection, mesh))
        n = min(late, view.n)
        head = view.head if n == view.n else None
        while True:
            page = await line.request(GetAudit(rid=0, n=n), Audit)
            load = partial(rows.load_audit_receipts, mesh=mesh, first=n, end=n + len(page.rows))
            receipts = await self._journal.read(load)
            for text in page.rows:
                raw = statements.text_bytes(text)
                head = self._link_up(raw, n, head)
                if receipts.get(n, head) != head:
                    raise AuditConflict("audit_receipt", f"row {n}")
                n += 1
            if page.cp is not None and not page.more:
                if head is None or n < view.n:
                    raise AuditConflict("audit_truncated", f"it ends at {n}")
                view = audit_view.verify(AuditView(n, head), [], page.cp, {}, mesh=mesh, broker=BrokerId(line.broker))
                if owed >= view.n:
                    raise AuditConflict("audit_truncated", f"it ends at {view.n}")
                await self._save(view)
                return
            if not page.rows:
                return
            await asyncio.sleep(PAGE_PAUSE_S)

    def _link_up(self, raw: bytes, n: int, previous: Digest | None) -> Digest:
        """Check one row and that it follows `previous`; returns its hash.

        A row that was acknowledged only after it had been verified is fetched again, without a `previous`: that the
        chain from it leads to the head that was verified proves that it is the same row.
        """
        if previous is None:
            previous = Digest(str(statements.decode(raw).get("prev_hash")))
        audit_view.read_row(raw, self._membership.mesh, n, previous)
        head = row_hash(raw)
        if n + 1 == self._view.n and head != self._view.head:
            raise AuditConflict("audit_chain", f"row {n} is another than before")
        return head

    async def _save(self, view: AuditView) -> None:
        mesh = self._membership.mesh
        await self._journal.write(lambda connection: rows.save_audit_view(connection, mesh, view))
        self._view = view

    async def _find(self, error: AuditConflict | Invalid) -> None:
        if self.finding is not None:
            return
        finding = AuditFinding(error.code, error.detail, self._runtime.now())
        proof = [self._view.checkpoint] if self._view.checkpoint is not None else []
        mesh = self._membership.mesh

        def write(connection: sqlite3.Connection) -> None:
            rows.save_audit_finding(connection, mesh, finding, proof)

        await self._journal.write(write)
        self.finding = finding
        self._hub.publish(events.AuditContradicted(error.code, error.detail))
