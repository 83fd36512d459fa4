"""What the broker says to the sender of a message that does not arrive: a row in its mailbox."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from claudemesh.broker.store.base import Told
from claudemesh.broker.store.postgres.addresses import Addresses
from claudemesh.broker.store.postgres.mailboxes import COLUMNS
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.store.postgres.usages import Usages
from claudemesh.protocol import limits
from claudemesh.types import UnixMillis

_FOUND: Final = """
    SELECT k.recipient, k.sender, k.message_id
    FROM unnest($1::bigint[], $2::bigint[], $3::text[]) k (recipient, sender, message_id)
    CROSS JOIN LATERAL (
        SELECT FROM mailbox
        WHERE recipient = k.recipient AND sender = k.sender AND message_id = k.message_id AND kind = 'sys'
            AND shared IS NULL
        LIMIT 1
    ) m
"""


class Notices:
    """Stores notices."""

    def __init__(self, addresses: Addresses, usages: Usages) -> None:
        self._addresses = addresses
        self._usages = usages

    async def put(self, transaction: Transaction, told: Sequence[Told], now: UnixMillis) -> None:
        """Store each, unless one about the same message and recipient waits already."""
        if not told:
            return
        refs = await self._addresses.obtain(
            transaction, [address for item, _ in told for address in ((item.mesh, item.sender), (item.mesh, item.to))]
        )
        new = {(refs[item.mesh, item.sender], refs[item.mesh, item.to], item.id): (item, raw) for item, raw in told}
        for found in await transaction.fetch(_FOUND, *map(list, zip(*new, strict=True))):
            del new[tuple(found)]
        rows = []
        expires_at = now + limits.QUEUE_LIFETIME_MS
        counts = Counter(item.mesh for item, _ in new.values())
        numbers = {mesh: iter(await transaction.numbers(mesh, count)) for mesh, count in counts.items()}
        for (recipient, sender, message), (item, payload) in new.items():
            q = next(numbers[item.mesh])
            size = len(payload)
            rows.append((recipient, q, sender, message, "sys", size, None, expires_at, now, None, None, None, payload))
            self._usages.count((item.mesh, item.sender), 1, size)
        await transaction.copy("mailbox", COLUMNS, rows)
