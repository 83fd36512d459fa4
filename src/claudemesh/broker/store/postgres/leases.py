"""Leases: a column of the mailbox, void once the link's node has ended; and which links here may hold any."""

from typing import Final

from claudemesh.broker.store.base import Leased, LinkId
from claudemesh.broker.store.postgres.addresses import Address
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import UnixMillis

WAITING: Final = """
    SELECT k.mesh_id, k.peer_id FROM unnest($1::text[], $2::text[]) k (mesh_id, peer_id)
    JOIN peers p ON p.mesh_id = k.mesh_id AND p.peer_id = k.peer_id
    WHERE EXISTS (
        SELECT FROM mailbox WHERE recipient = p.ref AND (not_before IS NULL OR not_before <= $3)
            AND (lease IS NULL OR lease >> 32 NOT IN (SELECT node FROM nodes))
    )
"""

_LEASE: Final = """
    WITH chosen AS (
        SELECT recipient, q FROM mailbox
        WHERE recipient = (SELECT ref FROM peers WHERE mesh_id = $1 AND peer_id = $2)
            AND (not_before IS NULL OR not_before <= $3)
            AND (lease IS NULL OR lease >> 32 NOT IN (SELECT node FROM nodes))
        ORDER BY q LIMIT $4 FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE mailbox m SET lease = $5 FROM chosen c WHERE m.recipient = c.recipient AND m.q = c.q RETURNING m.*
    )
    SELECT q, l.accepted_at, l.kind, coalesce(l.payload, p.payload), coalesce(l.attestation, p.attestation),
        coalesce(slot, '')
    FROM leased l LEFT JOIN payloads p ON p.ref = l.shared ORDER BY q
"""
_RELEASE: Final = """
    UPDATE mailbox SET lease = NULL
    WHERE recipient = (SELECT ref FROM peers WHERE mesh_id = $1 AND peer_id = $2) AND lease = $3
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

    async def lease(
        self, transaction: Transaction, address: Address, link: LinkId, now: UnixMillis, limit: int
    ) -> list[Leased]:
        """Lease the oldest rows that are due and that nobody has."""
        if not self.holds(address, link):
            return []  # it ended while it waited for this transaction
        return [Leased(*row) for row in await transaction.fetch(_LEASE, *address, now, limit, link)]


async def release(transaction: Transaction, address: Address, link: LinkId) -> None:
    """End the leases of a link."""
    await transaction.execute(_RELEASE, *address, link)
