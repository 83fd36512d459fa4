"""Which link gets a mailbox: the newest of its peer, while that has room (docs/spec/broker.md §4)."""

from claudemesh.broker.links import Link
from claudemesh.types import MeshId, PeerId


class Mailbox:
    """The route of one mailbox. The rows themselves are in the store.

    While `backlog` is false every row that is due is leased to some link, so a new envelope may be leased to
    the newest link as it is stored and pushed from memory. While it is true rows wait in the store, and a
    new one waits behind them: within one mailbox pushes go out in the order of acceptance.
    """

    __slots__ = ("backlog", "leasing", "links", "mesh", "peer", "uncommitted", "waiting")

    def __init__(self, mesh: MeshId, peer: PeerId) -> None:
        self.mesh = mesh
        self.peer = peer
        self.links: list[Link] = []
        """Open links, the newest last."""
        self.backlog = True
        self.leasing = False
        """A lease is being fetched from the store."""
        self.uncommitted = 0
        """Envelopes without a lease whose commit is under way."""
        self.waiting = 0
        """Grows whenever the store gets a row that is not leased."""

    def newest(self) -> Link | None:
        """The link that gets what comes next."""
        for link in reversed(self.links):
            if not link.closed:
                return link
        return None

    def direct(self, buffered_bytes: int) -> Link | None:
        """The link to which a new envelope may be leased at once, if there is one."""
        if self.backlog or self.leasing:
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

    def is_drained(self, waiting: int) -> bool:
        """Whether the store can hold no row that a lease begun at `waiting` did not see."""
        return self.waiting == waiting and not self.uncommitted
