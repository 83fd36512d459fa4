"""The time while a link is open, as long as nobody sets the clock (docs/spec/wire.md §3).

Peer and broker compare their clocks when a link opens. A clock that is set afterwards agrees with nobody's: by it,
messages would be dated that their recipients refuse, and honest ones refused that a broker has let go.
"""

from typing import Final

from claudemesh.errors import Unreachable
from claudemesh.peer.runtime import Runtime
from claudemesh.types import UnixMillis

MAX_STEP_MS: Final = 1_000
"""More than a clock that is corrected in the usual way moves at once. To dial again in vain costs little."""


class LinkClock:
    """What one peer seals and judges by, on one link after another."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._began_at = 0
        """What the clock shows less the time that has passed."""

    def begin_link(self) -> None:
        """A link is about to be dialled, which compares clocks."""
        self._began_at = self._runtime.now() - self._runtime.uptime()

    def now(self) -> UnixMillis:
        """The time.

        Raises:
            Unreachable: `link_lost`; the clock was set (or the computer slept) since the link was dialled.
        """
        now = self._runtime.now()
        if abs(now - self._runtime.uptime() - self._began_at) > MAX_STEP_MS:
            raise Unreachable("link_lost", "this machine's clock was set")
        return now
