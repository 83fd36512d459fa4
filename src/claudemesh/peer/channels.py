"""What a peer does with channels and groups: make, join, leave, add, remove, look back (docs/sdk.md §6)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from claudemesh.errors import AddressError, RosterRefused, UsageError
from claudemesh.peer import channel_names, rulings
from claudemesh.peer.channel_names import MAX_TOPIC_CHARACTERS
from claudemesh.peer.correspondence import Correspondent
from claudemesh.peer.history import HISTORY_MESSAGES, Shared
from claudemesh.peer.journal import inbox, posts
from claudemesh.peer.line import Line
from claudemesh.peer.views import ChannelView, Received, read_post, read_row
from claudemesh.protocol.roster import GENERAL, Channel
from claudemesh.types import ChannelId, PeerId

ChannelKind = Literal["open", "private", "group"]


@dataclass(frozen=True, slots=True)
class Removed:
    """Who was taken out of a channel, and whether what they know of its secret is worthless by now."""

    peers: tuple[PeerId, ...]
    rotated: bool


class ChannelMember(Correspondent):
    """What a peer can do with channels."""

    async def create_channel(self, name: str, kind: ChannelKind = "open", *, topic: str = "") -> ChannelView:
        """Make a channel (`#name`) or group (`@name`), with this peer in it.

        Args:
            name: 1 to 40 of `a-z`, `0-9`, `-` and `_`. The broker never learns it.
            kind: `open` to every member of the mesh; `private`, to which its creator adds; `group`, which anybody
                may join.
            topic: Up to 200 characters.

        Raises:
            AddressError: `name_taken`; a name that is known looks the same.
            RosterRefused, Refused, Unreachable: It was not made.
        """
        kind = "group" if name.strip().startswith("@") else kind
        name = channel_names.require_channel_name(name)
        if len(topic) > MAX_TOPIC_CHARACTERS or not (topic == "" or topic.isprintable()):
            raise UsageError("usage", f"a topic has up to {MAX_TOPIC_CHARACTERS} visible characters")
        parts = self._parts
        directory = parts.channels.directory
        directory.require_free(name, kind)
        parts.uplink.require_member()
        line = await parts.uplink.line()
        channel = ChannelId(parts.runtime.entropy(16).hex())
        await directory.propose(channel, name, topic)
        try:
            await self._append(line, "chan", chan=channel, kind=kind)
        except Exception:
            if channel not in parts.membership.roster.channels:
                await directory.withdraw(channel)
            raise
        directory.announce()
        if kind == "open":
            await parts.channels.subscriptions.want(channel, line, wanted=True)
        return self._view(parts.membership.roster.channels[channel])

    async def join_channel(self, address: str) -> ChannelView:
        """Read an open channel from now on, or enter a group.

        Raises:
            AddressError: `unknown_address`, or `not_joined`: a private channel is entered by being added to it.
        """
        parts = self._parts
        channel = self._channel(address)
        if channel.kind == "open":
            line = await parts.uplink.line(0) if parts.uplink.is_open else None
            await parts.channels.subscriptions.want(channel.id, line, wanted=True)
        elif parts.keyring.member not in channel.members:
            if channel.kind == "private":
                raise AddressError("not_joined", address)
            await self._change_members(channel, "chan_add", [parts.keyring.member])
        return self._view(channel)

    async def leave_channel(self, address: str) -> ChannelView:
        """Read an open channel no longer, or leave a group or private channel."""
        parts = self._parts
        channel = self._channel(address)
        if channel.kind == "open":
            line = await parts.uplink.line(0) if parts.uplink.is_open else None
            await parts.channels.subscriptions.want(channel.id, line, wanted=False)
        elif parts.keyring.member in channel.members:
            await self._change_members(channel, "chan_del", [parts.keyring.member])
        return self._view(channel)

    async def add_to_channel(self, address: str, member: str) -> tuple[PeerId, ...]:
        """Add the peer, or every peer of the user, that `member` stands for; returns those who were not in it.

        What was said before stays closed to them until somebody shares it (`share_history`).
        """
        channel = self._closed_channel(address)
        added = tuple(peer for peer in self._parts.names.resolve(member).peers if peer not in channel.members)
        await self._change_members(channel, "chan_add", added)
        for peer in added:
            await self._parts.channels.directory.tell(channel.id, peer)
        return added

    async def remove_from_channel(self, address: str, member: str) -> Removed:
        """Remove the peer, or every peer of the user, that `member` stands for, and replace the channel's secret."""
        channel = self._closed_channel(address)
        removed = tuple(peer for peer in self._parts.names.resolve(member).peers if peer in channel.members)
        line = await self._change_members(channel, "chan_del", removed)
        if line is None or channel.id not in self._parts.channels.epochs.scopes:
            return Removed(removed, rotated=False)
        return Removed(removed, rotated=bool(await self._parts.channels.rotator.rotate_all(line, [channel.id])))

    def channels(self) -> list[ChannelView]:
        """Every channel and group that the roster holds; private ones of others have no name here."""
        return [self._view(channel) for channel in self._parts.channels.directory.channels()]

    def channel(self, address: str) -> ChannelView:
        """One channel or group, or `AddressError` (`unknown_address`)."""
        return self._view(self._channel(address))

    def channel_name(self, channel: ChannelId) -> str:
        """How a channel is written: its name with its sign, or the beginning of its id."""
        return self._parts.channels.directory.address_of(channel)

    async def channel_history(self, address: str, limit: int = 100) -> list[Received]:
        """The last posts of a channel that are kept here, received and own, oldest first.

        Kept are up to 1,000 received posts of each channel, for 30 days.
        """
        parts, mesh, channel = self._parts, self._parts.mesh, self._channel(address)
        received, own = await parts.journal.read(
            lambda c: (
                inbox.load_of_channel(c, mesh, channel.id, limit),
                posts.load_of_channel(c, mesh, channel.id, limit),
            )
        )
        address_of, channel_of = parts.names.address_of, parts.channels.directory.address_of
        shown = [read_row(row, address_of, channel_of, parts.remembered_since) for row in received]
        shown += [read_post(row, parts.keyring.member, address_of, channel_of) for row in own]
        return sorted(shown, key=lambda message: message.accepted_at)[-limit:]

    async def share_history(self, address: str, member: str, limit: int = HISTORY_MESSAGES) -> list[Shared]:
        """Give a member of a channel what is kept of it here: the posts, each with its author's signature.

        Nothing of this ever happens by itself.

        Returns:
            What each peer was given: of a user, every other device that is in the channel.

        Raises:
            AddressError: `not_joined`; the member, or this peer, is not in the channel.
            UsageError: The address is that of this peer itself.
        """
        parts, roster = self._parts, self._parts.membership.roster
        channel = self._channel(address)
        target = parts.names.resolve(member)
        own, inside = parts.keyring.member, roster.channel_members(channel.id)
        if set(target.peers) == {own}:
            raise UsageError("usage", f"{member} is this peer, which has that history")
        members = [peer for peer in target.peers if peer in inside and peer != own]
        if own not in inside or not members:
            raise AddressError("not_joined", f"{member if own in inside else 'this peer'} is not in {address}")
        parts.uplink.require_member()
        line = await parts.uplink.line()
        current = await parts.channels.rotator.epoch_for(line, roster.scope_of(channel.id))
        shared = [await parts.channels.history.share(channel.id, peer, current, limit) for peer in members]
        parts.outgoing.wake()
        return shared

    async def rotate_scopes(self, scopes: Collection[ChannelId] | None = None) -> list[ChannelId]:
        """Replace at once every epoch that somebody who is not a member any more may know.

        To be called by whoever removed a peer: everybody else does it when they next write.

        Args:
            scopes: Only these (`Roster.scope_of`); None for all of which this peer holds any epoch.

        Returns:
            The scopes that have a new epoch.

        Raises:
            Refused, Unreachable: Some were not replaced; the next who writes does that.
        """
        return await self._parts.channels.rotator.rotate_all(await self._parts.uplink.line(), scopes)

    # Private

    def _channel(self, address: str) -> Channel:
        return self._parts.membership.roster.channels[self._parts.channels.directory.resolve(address)]

    def _closed_channel(self, address: str) -> Channel:
        channel = self._channel(address)
        if channel.kind == "open":
            raise UsageError("usage", f"{address} is open to every member of the mesh")
        return channel

    async def _change_members(self, channel: Channel, op: str, peers: Collection[PeerId]) -> Line | None:
        """Append an entry for each; None when there was nothing to change."""
        if not peers:
            return None
        self._parts.uplink.require_member()
        line = await self._parts.uplink.line()
        for peer in peers:
            await self._append(line, op, chan=channel.id, who=peer)
        return line

    async def _append(self, line: Line, op: str, **fields: str) -> None:
        """Append an entry of this peer; a refusal says in words what the rule is."""
        keyring, membership = self._parts.keyring, self._parts.membership
        try:
            await membership.append(line, op, [keyring.sign], by=keyring.member, **fields)
        except RosterRefused as error:
            raise rulings.in_words(op, error, membership.roster.role_of(keyring.member)) from error

    def _view(self, channel: Channel) -> ChannelView:
        parts, roster = self._parts, self._parts.membership.roster
        members = roster.channel_members(channel.id)
        inside = parts.keyring.member in members
        return ChannelView(
            id=channel.id,
            name=parts.channels.directory.address_of(channel.id),
            kind=channel.kind,
            topic=parts.channels.directory.topic_of(channel.id),
            creator=channel.creator,
            joined=inside and parts.channels.subscriptions.wants(channel.id),
            built_in=channel.id == GENERAL,
            members=tuple(sorted(members)),
        )
