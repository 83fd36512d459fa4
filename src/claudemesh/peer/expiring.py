"""Messages whose time passes while they wait in the outbox: they are settled here, with or without a link."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final

from claudemesh.errors import LocalError
from claudemesh.peer.journal import Journal, outbox, posts
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.settling import write_end
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import limits
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness

MAX_SLEEP_MS: Final = limits.HOUR_MS
"""The clock may be set while this sleeps."""


class Expirer:
    """Settles rows that were never sealed; whether a transmitted one expired is for the broker to say."""

    def __init__(
        self, membership: Membership, keyring: Keyring, journal: Journal, tracker: Tracker, runtime: Runtime
    ) -> None:
        self._membership = membership
        self._keyring = keyring
        self._journal = journal
        self._tracker = tracker
        self._runtime = runtime
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """A message with an end was queued."""
        self._changed.set()

    async def run(self) -> None:
        """Settle what expires until cancelled."""
        mesh = self._membership.mesh
        while True:
            self._changed.clear()
            wait_ms = MAX_SLEEP_MS
            try:
                await self._expire()
                dues = await self._journal.read(lambda c: (outbox.next_expiry(c, mesh), posts.next_expiry(c, mesh)))
                for due_at in filter(None, dues):
                    wait_ms = min(max(due_at - self._runtime.now(), 1) + 1, wait_ms)
            except LocalError:
                wait_ms = self._runtime.tempo.disk_retry_ms
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._changed.wait()

    async def _expire(self) -> None:
        mesh, now, signer = self._membership.mesh, self._runtime.now(), self._keyring.member
        rows: list[OutboxRow | PostRow] = await self._journal.read(
            lambda c: [*outbox.load_expired(c, mesh, now), *posts.load_expired(c, mesh, now)]
        )
        claim = Claim(Stage.EXPIRED, Witness.SENDER)
        for row in rows:
            end = partial(
                write_end, mesh=mesh, row=row, outcome=Outcome.EXPIRED, claim=claim, detail="", signer=signer, now=now
            )
            self._tracker.record([await self._journal.write(end)])
