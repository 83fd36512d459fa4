"""Reading the inbox: listing, following, and marking what was shown."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema import messages as schema
from claudemesh.daemon.schema.base import Done
from claudemesh.daemon.trust import trust_of
from claudemesh.errors import UsageError
from claudemesh.peer import Peer, Received, Stage, events
from claudemesh.peer.correspondence import Correspondent
from claudemesh.peer.peer_session import PeerSession

READ_BATCH: Final = 200


class Reading:
    """What a reader does."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def inbox(self, args: schema.InboxArgs, reply: Reply) -> schema.InboxEnd:
        """Report messages; nothing is marked, because nobody was shown anything yet."""
        count, more = 0, False
        for peer in self._home.selected(args.mesh):
            found = await peer.inbox(unseen=args.unread, limit=args.limit + 1)
            more |= len(found) > args.limit
            for message in found[: args.limit] if args.unread else found[-args.limit :]:
                await reply.event(schema.MessageEvent(message=show(peer, message)))
                count += 1
        return schema.InboxEnd(count=count, more=more)

    async def shown(self, args: schema.Shown, reply: Reply) -> Done:
        """Mark messages as seen, and sign read receipts where the reader is a model."""
        peer = self._home.peer(args.mesh)
        reader = self._home.correspondent(peer, args.session)
        found = [one for number in args.numbers for one in await peer.inbox(after=number - 1, limit=1)]
        messages = [one for one in found if one.number in set(args.numbers)]
        if args.read:
            for message in messages:
                await reader.mark(message, Stage.READ)
        if isinstance(reader, PeerSession):
            reader.shown(*messages)
        await peer.mark_seen(*messages)
        return Done()

    async def watch(self, args: schema.WatchArgs, reply: Reply) -> Done:
        """Report unread messages and those that arrive, until the other end hangs up."""
        if args.tags and not args.session:
            raise UsageError("usage", "a tag belongs to a session; name one")
        if args.session:
            peer = self._home.peer(args.mesh)
            async with self._home.session(peer, args.session, args.tags) as session:
                await _follow(peer, session, f"{peer.address_of(peer.id)}/{session.label}", reply)
            return Done()
        peers = self._home.selected(args.mesh) or [self._home.peer(args.mesh)]
        async with asyncio.TaskGroup() as group:
            for peer in peers:
                group.create_task(_follow(peer, peer, peer.address_of(peer.id), reply))
        return Done()


def show(peer: Peer, message: Received) -> schema.Message:
    """A received message; who sent it is taken from the roster and the pinned names alone."""
    view = peer.view(message.sender_id)
    label = peer.session_label(message.sender_id, message.sender_session)
    return schema.Message(
        number=message.number,
        id=message.id,
        mesh=peer.alias,
        sender=schema.Sender(
            address=f"{message.sender}/{label}" if label else message.sender,
            key=message.sender_id,
            session=label,
            trust=trust_of(view) if view is not None else "unknown",
        ),
        to_session=peer.session_label(peer.id, message.session) if message.session is not None else "",
        sent_at=message.sent_at,
        received_at=message.received_at,
        priority=message.priority,
        reply_to=message.reply_to or "",
        channel=message.channel,
        missing=message.gap,
        stale=message.is_stale,
        may_repeat=message.may_repeat,
        shared_by=message.shared_by,
        text=message.text,
        unread=message.seen_at is None,
    )


async def _follow(peer: Peer, reader: Correspondent, address: str, reply: Reply) -> None:
    async with _news(peer) as news:
        await reply.event(schema.MessageEvent(watching=schema.Watching(mesh=peer.alias, address=address)))
        last, withheld = 0, set[int]()
        last = await _report_new(peer, reader, last, withheld, reply)
        async for event in news:
            match event:
                case events.MessageArrived() | events.EventsDropped():
                    last = await _report_new(peer, reader, last, withheld, reply)
                case events.QuietChanged():
                    await _report_withheld(peer, reader, withheld, reply)
                case events.GapNoticed():
                    await reply.event(schema.MessageEvent(gap=_gap(peer, event)))
                case events.MessageHeld():
                    await reply.event(schema.MessageEvent(held=_held(peer, event)))
                case _:
                    pass


def _gap(peer: Peer, noticed: events.GapNoticed) -> schema.Gap:
    return schema.Gap(
        mesh=peer.alias,
        address=peer.address_of(noticed.sender),
        channel=peer.channel_name(noticed.channel) if noticed.channel is not None else "",
        missing=noticed.missing,
    )


def _held(peer: Peer, noticed: events.MessageHeld) -> schema.HeldNotice:
    return schema.HeldNotice(
        mesh=peer.alias, address=peer.address_of(noticed.sender), id=noticed.message_id, reason=noticed.reason
    )


async def _report_new(peer: Peer, reader: Correspondent, last: int, withheld: set[int], reply: Reply) -> int:
    """Report unseen messages after row `last`; returns the last row looked at.

    Args:
        withheld: Gets the rows that are not put before an agent now: a session may be one, the peer as such is none.
    """
    while True:
        messages = await reader.unseen(last, READ_BATCH)
        for message in messages:
            if isinstance(reader, PeerSession) and peer.withheld(message.priority):
                withheld.add(message.number)
            else:
                await reply.event(schema.MessageEvent(message=show(peer, message)))
        if len(messages) < READ_BATCH:
            return messages[-1].number if messages else last
        last = messages[-1].number


async def _report_withheld(peer: Peer, reader: Correspondent, withheld: set[int], reply: Reply) -> None:
    """Report what was withheld and may be shown now, unless somebody was shown it meanwhile."""
    after = min(withheld, default=1) - 1
    while withheld:
        messages = await reader.unseen(after, READ_BATCH)
        for message in messages:
            if message.number in withheld and not peer.withheld(message.priority):
                withheld.discard(message.number)
                await reply.event(schema.MessageEvent(message=show(peer, message)))
        if len(messages) < READ_BATCH:
            return
        after = messages[-1].number


@contextlib.asynccontextmanager
async def _news(peer: Peer) -> AsyncIterator[AsyncIterator[events.Event]]:
    """The events of a peer from the moment this is entered, not from the first one that is asked for."""
    source = peer.events()
    first = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)

    async def following() -> AsyncIterator[events.Event]:
        with contextlib.suppress(StopAsyncIteration):
            yield await first
        async for event in source:
            yield event

    try:
        yield following()
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await source.aclose()  # type: ignore[attr-defined]
