"""Channel messages and epochs in PostgreSQL: one payload, a row in each mailbox, one audit row."""

from collections.abc import Sequence
from typing import Final

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import FannedOut, FanOut
from claudemesh.broker.store.postgres.addresses import Addresses
from claudemesh.broker.store.postgres.leases import Leases
from claudemesh.broker.store.postgres.mailboxes import hash_of
from claudemesh.broker.store.postgres.notices import Notices
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.store.postgres.usages import Usages
from claudemesh.protocol.audit_rows import size_class
from claudemesh.types import UnixMillis

_FIRST_ANSWER: Final = """
    SELECT audit_n, accepted_at FROM payloads WHERE sender = $1 AND message_id = $2 AND channel = $3 AND kind = $4
"""
_INSERT_PAYLOAD: Final = """
    INSERT INTO payloads (sender, kind, channel, message_id, attestation, audit_n, accepted_at, payload)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ref
"""
_COLUMNS: Final = (
    "recipient",
    "q",
    "sender",
    "kind",
    "size",
    "not_before",
    "expires_at",
    "accepted_at",
    "lease",
    "shared",
    "slot",
)


class FanOuts:
    """Stores what goes into many mailboxes."""

    def __init__(self, addresses: Addresses, leases: Leases, usages: Usages, notices: Notices) -> None:
        self._addresses = addresses
        self._leases = leases
        self._usages = usages
        self._notices = notices

    async def store(self, transaction: Transaction, fan_outs: Sequence[FanOut], now: UnixMillis) -> list[FannedOut]:
        """Store each, in order; one that is stored already gets the first answer."""
        return [
            await self._first_answer(transaction, one) or await self._store_new(transaction, one, now)
            for one in fan_outs
        ]

    async def _first_answer(self, transaction: Transaction, one: FanOut) -> FannedOut | None:
        sender = (one.mesh, one.sender)
        ref = (await self._addresses.find(transaction, [sender])).get(sender)
        found = await transaction.fetch(_FIRST_ANSWER, ref, one.id, one.channel, one.kind)
        if not found:
            return None
        [(n, accepted_at)] = found
        return FannedOut((), (), True, n, await hash_of(transaction, one.mesh, n), accepted_at)

    async def _store_new(self, transaction: Transaction, one: FanOut, now: UnixMillis) -> FannedOut:
        told = details(priority=one.priority, size_class=size_class(one.size), count=len(one.recipients))
        record = transaction.record(one.mesh, one.kind, one.sender, None, told, now)
        if not one.recipients:
            return FannedOut((), (), False, record.id, record.hash, now)
        is_due = one.not_before is None or one.not_before <= now
        leased = [is_due and self._leases.holds((one.mesh, to.peer), to.lease) for to in one.recipients]
        qs = await self._insert(transaction, one, record.id, leased, now)
        for to in one.recipients:
            self._usages.count((one.mesh, to.peer), 1, one.size)
        await self._notices.put(transaction, one.notices, now)
        return FannedOut(qs, leased, False, record.id, record.hash, now)

    async def _insert(
        self, transaction: Transaction, one: FanOut, audit_n: int, leased: Sequence[bool], now: UnixMillis
    ) -> list[int]:
        refs = await self._addresses.obtain(
            transaction, [(one.mesh, peer) for peer in (one.sender, *(to.peer for to in one.recipients))]
        )
        sender = refs[one.mesh, one.sender]
        [(shared,)] = await transaction.fetch(
            _INSERT_PAYLOAD, sender, one.kind, one.channel, one.id, one.attestation, audit_n, now, one.payload
        )
        qs = await transaction.numbers(one.mesh, len(one.recipients))
        common = (sender, one.kind, one.size, one.not_before, one.expires_at, now)
        await transaction.copy(
            "mailbox",
            _COLUMNS,
            [
                (refs[one.mesh, to.peer], q, *common, to.lease if mine else None, shared, to.slot or None)
                for to, q, mine in zip(one.recipients, qs, leased, strict=True)
            ],
        )
        return qs
