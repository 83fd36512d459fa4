"""Which channels' posts this peer has the broker put into its mailbox (docs/spec/wire.md §5.7)."""

import asyncio
from typing import Final

from claudemesh.errors import Refused
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import channels as rows
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.protocol.messages import Ok, Subscribe
from claudemesh.protocol.roster import GENERAL, SPACE
from claudemesh.types import ChannelId

RETRY_MS: Final = 1_000


class Subscriptions:
    """What this peer wants; the broker is told of what differs from what it delivers by itself."""

    def __init__(self, membership: Membership, journal: Journal) -> None:
        self._membership = membership
        self._journal = journal
        self._wanted: dict[ChannelId, bool] = {}

    async def load(self) -> None:
        """Read them from the journal."""
        mesh = self._membership.mesh
        self._wanted = await self._journal.read(lambda connection: rows.load_subscriptions(connection, mesh))

    def wants(self, channel: ChannelId) -> bool:
        """Whether posts of a channel come here; without a word of ours, those of every channel but open ones do."""
        return self._wanted.get(channel, channel in (GENERAL, SPACE) or not self._is_open(channel))

    async def want(self, channel: ChannelId, line: Line | None, *, wanted: bool) -> None:
        """Change it, durably; without a link the broker is told on the next one.

        Raises:
            Refused: The broker did not take it; it is asked again on the next link.
        """
        mesh = self._membership.mesh
        await self._journal.write(lambda connection: rows.save_subscription(connection, mesh, channel, wanted=wanted))
        self._wanted[channel] = wanted
        if line is not None:
            await line.request(Subscribe(rid=0, chan=channel, on=wanted), Ok)

    async def tell(self, line: Line) -> None:
        """Tell a broker everything: it may be another one, or have lost its store."""
        for channel in list(self._wanted):
            await self._tell_one(line, channel)

    async def _tell_one(self, line: Line, channel: ChannelId) -> None:
        while True:
            try:
                await line.request(Subscribe(rid=0, chan=channel, on=self._wanted[channel]), Ok)
            except Refused as error:
                if not error.retryable:
                    return  # it is not in the channel any more
                await asyncio.sleep((error.retry_after_ms or RETRY_MS) / 1000)
            else:
                return

    def _is_open(self, channel: ChannelId) -> bool:
        known = self._membership.roster.channels.get(channel)
        return known is not None and known.kind == "open"
