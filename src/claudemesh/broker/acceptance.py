"""When to sign `accepted`: at once for a sender that waits, else in groups (docs/spec/broker.md §4)."""

import asyncio
from collections.abc import Callable
from typing import Final

from claudemesh.broker.links import AcceptedPostRow, AcceptedRow, Link
from claudemesh.broker.pushing import accepted_frame
from claudemesh.crypto.primitives import SigningKey
from claudemesh.protocol import limits
from claudemesh.types import UnixMillis

GATHER_MS: Final = 20
"""A signature costs as much as the rest of a message: a sender with more envelopes under way waits this long."""


class Acceptances:
    """Envelopes that are stored and not yet stated to be, by link."""

    def __init__(self, key: SigningKey, clock: Callable[[], UnixMillis]) -> None:
        self._key = key
        self._clock = clock
        self._waiting: set[Link] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, link: Link, row: AcceptedRow | AcceptedPostRow) -> None:
        """One envelope of `link` was committed."""
        if link.accepted is None:
            link.accepted = []
        link.accepted.append(row)
        self._waiting.add(link)

    def settle(self) -> None:
        """A commit's answers are all added: sign for every sender that has nothing else under way."""
        ready = [link for link in self._waiting if link.unanswered == 0 or _is_full(link)]
        for link in ready:
            self._sign(link)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_MS / 1_000, self._ring)

    def flush(self) -> None:
        """Sign everything now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for link in list(self._waiting):
            self._sign(link)

    def _ring(self) -> None:
        self._timer = None
        self.flush()

    def _sign(self, link: Link) -> None:
        self._waiting.discard(link)
        rows, link.accepted = link.accepted or [], None
        if link.closed:
            return
        for start in range(0, len(rows), limits.MAX_IDS_PER_FRAME):
            group = rows[start : start + limits.MAX_IDS_PER_FRAME]
            link.outlet.write(accepted_frame(link.mesh, group, self._key, self._clock()))


def _is_full(link: Link) -> bool:
    return link.accepted is not None and len(link.accepted) >= limits.MAX_IDS_PER_FRAME
