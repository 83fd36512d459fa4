"""Leases: void once the link's node has ended; and which links of this process may hold any.

A row that is stored for an open link has its lease in a column; one that is leased later has it in a table beside.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from claudemesh.broker.store.base import Leased, LinkId, SessionRow
from claudemesh.broker.store.postgres import presence
from claudemesh.broker.store.postgres.addresses import Address
from claudemesh.broker.store.postgres.lane import Lane
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import UnixMillis

# `OFFSET 0` has the planner look up each row's lease, and not compare all rows of a mailbox with all its leases.
WAITING: Final = """
    SELECT k.mesh_id, k.peer_id FROM unnest($1::text[], $2::text[]) k (mesh_id, peer_id)
    JOIN peers p ON p.mesh_id = k.mesh_id AND p.peer_id = k.peer_id
    WHERE EXISTS (
        SELECT FROM mailbox m WHERE recipient = p.ref AND (not_before IS NULL OR not_before <= $3)
            AND (lease IS NULL OR lease >> 32 NOT IN (SELECT node FROM nodes))
            AND NOT EXISTS (SELECT FROM leases l WHERE l.recipient = m.recipient AND l.q = m.q
                AND l.link >> 32 IN (SELECT node FROM nodes) OFFSET 0)
    )
"""

# Of each mailbox only once, or two links would choose the same rows. Another node may have leased a row since this
# statement began: then the insertion finds its lease and leaves it. What was leased is not joined with what was chosen:
# neither has an index, so that a batch of 400 rows would compare 160,000 pairs.
_LEASE: Final = """
    WITH chosen AS (
        SELECT k.link, m.recipient, m.q
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
            k (mesh_id, peer_id, link, now, number)
        JOIN peers p ON p.mesh_id = k.mesh_id AND p.peer_id = k.peer_id
        CROSS JOIN LATERAL (
            SELECT recipient, q FROM mailbox m
            WHERE recipient = p.ref AND (not_before IS NULL OR not_before <= k.now)
                AND (lease IS NULL OR lease >> 32 NOT IN (SELECT node FROM nodes))
                AND NOT EXISTS (SELECT FROM leases l WHERE l.recipient = m.recipient AND l.q = m.q
                    AND l.link >> 32 IN (SELECT node FROM nodes) OFFSET 0)
            ORDER BY q LIMIT k.number FOR UPDATE OF m SKIP LOCKED
        ) m
    ), leased AS (
        INSERT INTO leases AS l (recipient, q, link) SELECT recipient, q, link FROM chosen ORDER BY recipient, q
        ON CONFLICT (recipient, q) DO UPDATE SET link = excluded.link
        WHERE l.link >> 32 NOT IN (SELECT node FROM nodes)
        RETURNING recipient, q, link
    )
    SELECT leased.link, m.q, m.accepted_at, m.kind, coalesce(m.payload, p.payload),
        coalesce(m.attestation, p.attestation), coalesce(slot, '')
    FROM leased JOIN mailbox m USING (recipient, q) LEFT JOIN payloads p ON p.ref = m.shared ORDER BY m.q
"""
_RELEASE: Final = """
    WITH released AS (
        DELETE FROM leases WHERE link = $3 AND recipient = (SELECT ref FROM peers WHERE mesh_id = $1 AND peer_id = $2)
    )
    UPDATE mailbox SET lease = NULL
    WHERE lease = $3 AND recipient = (SELECT ref FROM peers WHERE mesh_id = $1 AND peer_id = $2)
"""


class Leases:
    """Which mailbox each open link has."""

    def __init__(self) -> None:
        self._address_of: dict[LinkId, Address] = {}

    def register(self, address: Address, link: LinkId) -> None:
        """From now on `link` may hold leases in this mailbox, until it is forgotten."""
        self._address_of[link] = address

    def holds(self, address: Address, link: LinkId | None) -> bool:
        """Whether a link may hold leases in a mailbox."""
        return link is not None and self._address_of.get(link) == address

    def forget(self, link: LinkId) -> Address | None:
        """A link gets no leases any more; returns the mailbox that it had."""
        return self._address_of.pop(link, None)

    def forget_all(self, first: LinkId, end: LinkId) -> None:
        """The links with a number from `first` to before `end` get no leases any more."""
        for link in [link for link in self._address_of if first <= link < end]:
            del self._address_of[link]

    async def take_over(self, transaction: Transaction, session: SessionRow) -> LinkId | None:
        """Announce a session; the link that had it before holds nothing any more, and is returned."""
        before = await presence.take_over(transaction, session)
        if before is not None:
            self.forget(before)
            await release(transaction, (session.mesh, session.peer), before)
        return before


class Gathering:
    """Leases asked for at the same time are one statement: a commit of one node wakes many links of another."""

    def __init__(self, leases: Leases, lane: Lane) -> None:
        self._leases = leases
        self._lane = lane
        self._open: _Round | None = None

    async def lease(self, address: Address, link: LinkId, now: UnixMillis, limit: int) -> list[Leased]:
        """Lease the oldest rows that are due and that nobody has."""
        wanted = _Wanted(address, link, now, limit)
        current = self._open
        if current is None:
            current = self._open = _Round()
            current.finished = asyncio.ensure_future(self._run(current))
        current.wanted.append(wanted)
        if current.finished is not None:
            failure = await asyncio.shield(current.finished)
            if failure is not None:
                raise failure
        return wanted.rows

    async def _run(self, current: "_Round") -> Exception | None:
        """Carry out what was asked for until its turn came; returns what went wrong, for each of the callers."""
        try:
            await self._lane.do(partial(self._carry_out, current=current))
        except Exception as error:  # noqa: BLE001 - it is raised in every caller
            return error
        finally:
            self._close(current)
        return None

    async def _carry_out(self, transaction: Transaction, current: "_Round") -> None:
        """Lease for each; one that has ended while it waited gets nothing."""
        self._close(current)
        rest = [one for one in current.wanted if self._leases.holds(one.address, one.link)]
        while rest:
            first = {one.address: one for one in reversed(rest)}
            chosen = set(map(id, first.values()))
            rest = [one for one in rest if id(one) not in chosen]
            await _lease(transaction, list(first.values()))

    def _close(self, current: "_Round") -> None:
        """What is asked for from now on is another statement."""
        if self._open is current:
            self._open = None


class _Wanted:
    """One call that wants leases, and what it got."""

    __slots__ = ("address", "limit", "link", "now", "rows")

    def __init__(self, address: Address, link: LinkId, now: UnixMillis, limit: int) -> None:
        self.address = address
        self.link = link
        self.now = now
        self.limit = limit
        self.rows: list[Leased] = []


class _Round:
    """Calls that share a statement."""

    __slots__ = ("finished", "wanted")

    def __init__(self) -> None:
        self.wanted: list[_Wanted] = []
        self.finished: asyncio.Future[Exception | None] | None = None


async def _lease(transaction: Transaction, wanted: Sequence[_Wanted]) -> None:
    columns = zip(*((*one.address, one.link, one.now, one.limit) for one in wanted), strict=True)
    rows: dict[LinkId, list[Leased]] = {one.link: [] for one in wanted}
    for link, *row in await transaction.fetch(_LEASE, *map(list, columns)):
        rows[link].append(Leased(*row))
    for one in wanted:
        one.rows = rows[one.link]


async def release(transaction: Transaction, address: Address, link: LinkId) -> None:
    """End the leases of a link."""
    await transaction.execute(_RELEASE, *address, link)
