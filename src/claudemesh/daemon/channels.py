"""Channels and groups: made, entered, left, changed, looked back at (docs/spec/channels.md)."""

from collections.abc import Iterable

from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.reading import show
from claudemesh.daemon.schema import channels as schema
from claudemesh.daemon.schema.messages import MessageEvent
from claudemesh.daemon.trust import trust_of
from claudemesh.peer import Peer
from claudemesh.peer.credentials import require_no_credentials
from claudemesh.peer.views import ChannelView, PeerView
from claudemesh.types import PeerId


class Channels:
    """Channels and groups of one mesh at a time; a sign tells them apart, `#` or `@`."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def create(self, args: schema.ChannelCreateArgs, reply: Reply) -> schema.ChannelCreated:
        """Make a channel or group."""
        peer = self._home.peer(args.mesh)
        await reply.progress("adding the channel to the roster")
        await require_no_credentials(f"{args.name}\n{args.topic}")
        view = await peer.create_channel(args.name, args.kind, topic=args.topic)
        return schema.ChannelCreated(mesh=peer.alias, channel=_channel(peer, view))

    async def list(self, args: schema.ChannelListArgs, reply: Reply) -> schema.ChannelList:
        """Every channel, or every group."""
        peer = self._home.peer(args.mesh)
        found = [_channel(peer, view) for view in peer.channels() if (view.kind == "group") == args.groups]
        return schema.ChannelList(mesh=peer.alias, channels=found)

    async def join(self, args: schema.ChannelJoinArgs, reply: Reply) -> schema.ChannelJoined:
        """Read a channel from now on."""
        peer = self._home.peer(args.mesh)
        await reply.progress(f"joining {args.channel}")
        before = peer.channel(args.channel).joined
        await peer.join_channel(args.channel)
        return schema.ChannelJoined(mesh=peer.alias, channel=_now(peer, args), changed=not before)

    async def leave(self, args: schema.ChannelLeaveArgs, reply: Reply) -> schema.ChannelLeft:
        """Read a channel no longer. Of a private one that was left, only what this machine still knows is shown."""
        peer = self._home.peer(args.mesh)
        await reply.progress(f"leaving {args.channel}")
        before = peer.channel(args.channel).joined
        await peer.leave_channel(args.channel)
        return schema.ChannelLeft(mesh=peer.alias, channel=_now(peer, args), changed=before)

    async def members(self, args: schema.ChannelMembersArgs, reply: Reply) -> schema.ChannelMembers:
        """Who can read a channel."""
        peer = self._home.peer(args.mesh)
        inside = set(peer.channel(args.channel).members)
        rows = sorted((one for one in await peer.peers() if one.id in inside), key=lambda one: one.address)
        return schema.ChannelMembers(
            mesh=peer.alias,
            channel=_now(peer, args),
            presence=peer.connected,
            members=[_member(one) for one in rows],
        )

    async def add(self, args: schema.ChannelAddArgs, reply: Reply) -> schema.ChannelMembersAdded:
        """Add the peers that an address stands for."""
        peer = self._home.peer(args.mesh)
        await reply.progress("adding the new members to the roster")
        added = await peer.add_to_channel(args.channel, args.member)
        return schema.ChannelMembersAdded(mesh=peer.alias, channel=_now(peer, args), added=_addresses(peer, added))

    async def remove(self, args: schema.ChannelRemoveArgs, reply: Reply) -> schema.ChannelMembersRemoved:
        """Take the peers that an address stands for out, and replace the secret."""
        peer = self._home.peer(args.mesh)
        await reply.progress("removing them in the roster, and replacing the secret")
        done = await peer.remove_from_channel(args.channel, args.member)
        removed = _addresses(peer, done.peers)
        return schema.ChannelMembersRemoved(
            mesh=peer.alias, channel=_now(peer, args), removed=removed, rotated=done.rotated
        )

    async def history(self, args: schema.ChannelHistoryArgs, reply: Reply) -> schema.ChannelHistoryEnd:
        """Report what is kept here of a channel; nothing of it counts as shown."""
        peer = self._home.peer(args.mesh)
        found = await peer.channel_history(args.channel, args.limit)
        for message in found:
            await reply.event(MessageEvent(message=show(peer, message)))
        return schema.ChannelHistoryEnd(mesh=peer.alias, channel=_now(peer, args), count=len(found))

    async def share(self, args: schema.ChannelShareArgs, reply: Reply) -> schema.ChannelShared:
        """Give a member what is kept here of a channel."""
        peer = self._home.peer(args.mesh)
        await reply.progress("encrypting what is kept here to the member")
        shared = await peer.share_history(args.channel, args.member, args.limit)
        return schema.ChannelShared(
            mesh=peer.alias,
            channel=_now(peer, args),
            to=[
                schema.SharedWith(address=peer.address_of(one.peer), messages=one.messages, epochs=one.epochs)
                for one in shared
            ],
        )


def _now(peer: Peer, args: schema.ChannelArgs) -> schema.Channel:
    return _channel(peer, peer.channel(args.channel))


def _channel(peer: Peer, view: ChannelView) -> schema.Channel:
    return schema.Channel(
        id=view.id,
        name=view.name,
        kind=view.kind,
        topic=view.topic,
        creator=peer.address_of(view.creator) if view.creator is not None else "",
        joined=view.joined,
        members=len(view.members),
    )


def _member(view: PeerView) -> schema.ChannelMember:
    return schema.ChannelMember(
        address=view.address, key=view.id, trust=trust_of(view), online=view.online, last_seen_at=view.last_seen
    )


def _addresses(peer: Peer, keys: Iterable[PeerId]) -> list[str]:
    return [peer.address_of(key) for key in keys]
