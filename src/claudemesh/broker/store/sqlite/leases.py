"""Which mailbox rows are leased to which link.

Leases of a single broker end with its process, so they are kept in memory: a row is written once and
deleted once, whoever it is leased to in between.
"""

import threading
from collections.abc import Iterable

from claudemesh.broker.store.base import LinkId
from claudemesh.broker.store.sqlite.addresses import Address


class Leases:
    """Leases by mailbox and link; called from the event loop, the writer and the reader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address_of: dict[LinkId, Address] = {}
        self._mailboxes: dict[Address, _Mailbox] = {}

    def register(self, address: Address, link: LinkId) -> None:
        """From now on `link` may hold leases in this mailbox, until it is released."""
        with self._lock:
            self._address_of[link] = address
            self._mailboxes.setdefault(address, _Mailbox()).links.add(link)

    def of(self, address: Address) -> list[int]:
        """The rows of a mailbox that are leased."""
        with self._lock:
            mailbox = self._mailboxes.get(address)
            return list(mailbox.holders) if mailbox else []

    def take(self, address: Address, link: LinkId, qs: Iterable[int]) -> set[int] | None:
        """Lease to `link` those of `qs` that nobody has; None when it has been released or has another mailbox."""
        with self._lock:
            if self._address_of.get(link) != address:
                return None
            holders = self._mailboxes[address].holders
            free = {q for q in qs if q not in holders}
            holders.update(dict.fromkeys(free, link))
            return free

    def take_each(self, wanted: Iterable[tuple[Address, LinkId | None, int]]) -> list[bool]:
        """Lease many new rows, each to its own link; false where there is none, or it ended, or has another mailbox."""
        with self._lock:
            taken = []
            for address, link, q in wanted:
                mine = link is not None and self._address_of.get(link) == address
                if link is not None and mine:
                    self._mailboxes[address].holders[q] = link
                taken.append(mine)
            return taken

    def drop(self, address: Address, qs: Iterable[int]) -> None:
        """These rows exist no more."""
        with self._lock:
            mailbox = self._mailboxes.get(address)
            if mailbox is not None:
                for q in qs:
                    mailbox.holders.pop(q, None)

    def links(self, first: LinkId, end: LinkId) -> list[LinkId]:
        """The links with a number from `first` to before `end` that are registered."""
        with self._lock:
            return [link for link in self._address_of if first <= link < end]

    def release(self, link: LinkId) -> None:
        """End the leases of a link, and its right to new ones."""
        with self._lock:
            address = self._address_of.pop(link, None)
            if address is None:
                return
            mailbox = self._mailboxes[address]
            mailbox.links.discard(link)
            mailbox.holders = {q: holder for q, holder in mailbox.holders.items() if holder != link}
            if not mailbox.links:
                del self._mailboxes[address]


class _Mailbox:
    """The open links of one mailbox, and which of them holds which row."""

    __slots__ = ("holders", "links")

    def __init__(self) -> None:
        self.links: set[LinkId] = set()
        self.holders: dict[int, LinkId] = {}
