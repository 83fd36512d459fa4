"""What there is of one kind, shared by the clients so that none of them can use up what the others need."""

from collections import Counter
from collections.abc import Collection


class Shares:
    """So many places, some of them reserved for each client.

    Args:
        total: Places in all.
        reserved: Of each client, fewer where there are too many clients for that; the rest is for whoever comes first.
    """

    def __init__(self, total: int, reserved: int, clients: Collection[str]) -> None:
        self._total = total
        self._reserved = min(reserved, total // len(clients))
        self._clients = frozenset(clients)
        self._taken: Counter[str] = Counter()

    def take(self, client: str) -> bool:
        """One more place for a client, unless what is left is the others'; returns whether it got one."""
        if self._taken[client] >= self._total - self._kept_from(client):
            return False
        self._taken[client] += 1
        return True

    def give_back(self, client: str) -> None:
        """A place that `take` has given."""
        self._taken[client] -= 1

    def of(self, client: str) -> int:
        """How many places a client has."""
        return self._taken[client]

    def _kept_from(self, client: str) -> int:
        """What the others have, or may have at any time."""
        return sum(max(self._taken[other], self._reserved) for other in self._clients - {client})
