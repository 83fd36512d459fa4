"""Which link gets a mailbox: the newest of its peer, while that has room (docs/spec/broker.md §4)."""

from claudemesh.broker.links import Link
from claudemesh.types import MeshId, PeerId


class Mailbox:
    """The route of one mailbox. The rows themselves are in the store.

    While `backlog` is false every row that is due is leased to some link, so a new envelope may be leased to
    the newest link as it is stored and pushed from memory. While it is true rows wait in the store, and a
    new one waits behind them: within one mailbox pushes go out in the order of acceptance.

    Rows that other nodes have stored are another matter: their senders have no links here, so a new envelope of
    one that has need not wait for them.
    """

    __slots__ = (
        "backlog",
        "foreign",
        "leasing",
        "links",
        "mesh",
        "peer",
        "uncommitted",
        "waiting",
        "waiting_elsewhere",
    )

    def __init__(self, mesh: MeshId, peer: PeerId) -> None:
        self.mesh = mesh
        self.peer = peer
        self.links: list[Link] = []
        """Open links, the newest last."""
        self.backlog = True
        self.foreign = False
        """Rows of other nodes may wait."""
        self.leasing = False
        """A lease is being fetched from the store."""
        self.uncommitted = 0
        """Envelopes without a lease whose commit is under way."""
        self.waiting = 0
        """Grows whenever the store gets a row that is not leased."""
        self.waiting_elsewhere = 0
        """Grows whenever it may have got one from another node."""

    def newest(self) -> Link | None:
        """The link that gets what comes next."""
        for link in reversed(self.links):
            if not link.closed:
                return link
        return None

    def direct(self, buffered_bytes: int) -> Link | None:
        """The link to which a new envelope may be leased at once, if there is one."""
        if self.backlog:
            return None
        link = self.newest()
        if link is None or link.window.room() <= 0 or link.outlet.buffered() > buffered_bytes:
            return None
        return link

    def attach(self, link: Link) -> None:
        """A link of this peer has opened."""
        self.links.append(link)
        self.backlog = True

    def detach(self, link: Link) -> None:
        """A link of this peer has ended; what it had leased waits again."""
        if link in self.links:
            self.links.remove(link)
        self.backlog = True

    def wait(self) -> None:
        """The store has a row for this mailbox that is not leased."""
        self.waiting += 1
        self.backlog = True

    def wait_elsewhere(self) -> None:
        """Another node may have stored rows for this mailbox that are not leased."""
        self.waiting_elsewhere += 1
        self.foreign = True

    def has_rows(self) -> bool:
        """Whether rows may wait in the store."""
        return self.backlog or self.foreign

    def found_no_more(self, waiting: int, waiting_elsewhere: int) -> bool:
        """A lease that was begun at these counts has left no row; returns whether none can wait now."""
        if self.waiting == waiting and not self.uncommitted:
            self.backlog = False
        if self.waiting_elsewhere == waiting_elsewhere:
            self.foreign = False
        return not self.has_rows()
