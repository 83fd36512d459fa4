"""What the broker says to the sender of a message that does not arrive: a row in its mailbox."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from claudemesh.broker.store.base import Told
from claudemesh.broker.store.sqlite.addresses import Addresses
from claudemesh.broker.store.sqlite.mailboxes import INSERT_ROWS, Mailboxes
from claudemesh.broker.store.sqlite.usages import Usages
from claudemesh.protocol import limits
from claudemesh.types import UnixMillis

_KIND: Final = "sys"


class Notices:
    """Stores notices. On the writer's thread."""

    def __init__(self, addresses: Addresses, mailboxes: Mailboxes, usages: Usages) -> None:
        self._addresses = addresses
        self._mailboxes = mailboxes
        self._usages = usages

    def put(self, connection: sqlite3.Connection, told: Sequence[Told], now: UnixMillis) -> None:
        """Store each, unless one about the same message and recipient waits already."""
        if not told:
            return
        rows = []
        expires_at = now + limits.QUEUE_LIFETIME_MS
        refs = self._addresses.obtain(
            connection, [address for item, _ in told for address in ((item.mesh, item.sender), (item.mesh, item.to))]
        )
        for item, payload in told:
            recipient, sender = refs[item.mesh, item.sender], refs[item.mesh, item.to]
            size = len(payload)
            q = self._mailboxes.number(1)
            rows.append((q, recipient, sender, item.id, _KIND, size, 0, None, expires_at, now, None, None, payload))
            self._usages.count((item.mesh, item.sender), 1, size)
        if INSERT_ROWS.execute(connection, rows) != len(rows):
            # One waits already: what was counted is counted anew when it is asked for.
            self._usages.forget()
