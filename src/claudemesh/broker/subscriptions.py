"""Who gets the posts of which channel (docs/spec/wire.md §5.7).

The rule is that of the channel's kind; only what a peer wants otherwise is remembered.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from claudemesh.broker.store.base import Subscription
from claudemesh.errors import Refused
from claudemesh.protocol.roster import GENERAL, SPACE, Roster
from claudemesh.types import ChannelId, Digest, PeerId


class _Subscribers(NamedTuple):
    """The subscribers of a channel, as long as neither its members nor their wishes change."""

    version: int
    digest: Digest
    changes: int
    peers: tuple[PeerId, ...]


class Subscriptions:
    """What the peers of one mesh want."""

    def __init__(self, kept: Iterable[Subscription] = ()) -> None:
        self._wanted: dict[ChannelId, dict[PeerId, bool]] = {}
        self._counts: Counter[PeerId] = Counter()
        self._changes: Counter[ChannelId] = Counter()
        self._cached: dict[ChannelId, _Subscribers] = {}
        for one in kept:
            self._keep(one.channel, one.peer, one.wanted)

    def subscribers(self, roster: Roster, channel: ChannelId) -> tuple[PeerId, ...]:
        """The members of a channel of the roster that want its posts."""
        version = roster.channel_version(channel)
        digest, changes = roster.digest_at(version), self._changes[channel]
        known = self._cached.get(channel)
        if known is None or known[:3] != (version, digest, changes):
            peers = tuple(self._count_out(roster, channel))
            known = self._cached[channel] = _Subscribers(version, digest, changes, peers)
        return known.peers

    def decide(self, roster: Roster, channel: ChannelId, peer: PeerId, wanted: bool, limit: int) -> bool | None:
        """What has to be kept so that `peer` gets what it wants: None when that is the rule anyway.

        Args:
            limit: How many channels a peer may want otherwise.

        Raises:
            Refused: `limit`.
        """
        if wanted == is_rule(roster, channel):
            return None
        if peer not in self._wanted.get(channel, {}) and self._counts[peer] >= limit:
            raise Refused("limit", "subscriptions_per_peer")
        return wanted

    def set(self, channel: ChannelId, peer: PeerId, wanted: bool | None) -> None:
        """Remember what `decide` has decided, once it is stored."""
        self.forget(peer, channel)
        if wanted is not None:
            self._keep(channel, peer, wanted)

    def forget(self, peer: PeerId, channel: ChannelId | None = None) -> None:
        """The peer has left a channel, or all of them."""
        for one in [channel] if channel is not None else list(self._wanted):
            if self._wanted.get(one, {}).pop(peer, None) is not None:
                self._counts[peer] -= 1
                self._changes[one] += 1

    def _keep(self, channel: ChannelId, peer: PeerId, wanted: bool) -> None:
        self._wanted.setdefault(channel, {})[peer] = wanted
        self._counts[peer] += 1
        self._changes[channel] += 1

    def _count_out(self, roster: Roster, channel: ChannelId) -> Iterable[PeerId]:
        wishes = self._wanted.get(channel, {})
        members = roster.channel_members(channel)
        if is_rule(roster, channel):
            return sorted(peer for peer in members if wishes.get(peer, True))
        return sorted(peer for peer, wanted in wishes.items() if wanted and peer in members)


def is_rule(roster: Roster, channel: ChannelId) -> bool:
    """Whether members of a channel get its posts without asking: not those of the open channels that anybody makes."""
    return channel in (GENERAL, SPACE) or roster.channels[channel].kind != "open"


def is_member(roster: Roster, channel: ChannelId, peer: PeerId) -> bool:
    """Whether a peer is in a channel now; in one that does not exist nobody is."""
    return roster.was_in_channel_at(peer, channel, roster.seq)
