"""How old the newest signed head is: who withholds entries from one peer has no newer one to show.

Source: docs/spec/roster.md §5.
"""

from claudemesh.peer import events
from claudemesh.peer.events import Hub
from claudemesh.peer.membership import Membership
from claudemesh.protocol.limits import STALE_HEAD_MS
from claudemesh.types import UnixMillis


class Freshness:
    """Warns once whenever the head grows old while a link is open."""

    def __init__(self, membership: Membership, hub: Hub) -> None:
        self._membership = membership
        self._hub = hub
        self._is_stale = False

    def look(self, now: UnixMillis) -> None:
        """Compare the head with the clock; asked now and then while the link is open."""
        head = self._membership.head
        age_ms = 0 if head is None else now - head.at
        was_stale, self._is_stale = self._is_stale, age_ms > STALE_HEAD_MS
        if self._is_stale and not was_stale:
            self._hub.publish(events.HeadStale(age_ms))
