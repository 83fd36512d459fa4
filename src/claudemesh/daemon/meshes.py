"""The daemon itself and its meshes: status, `up`, create, list, show, leave, move."""

import asyncio
import os
from typing import Final

from claudemesh import __version__
from claudemesh.crypto import identity
from claudemesh.daemon.config_dir import read_json
from claudemesh.daemon.context import Context, say_to
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema.base import Done, InMesh, NoArgs
from claudemesh.daemon.schema.meshes import (
    DaemonStatus,
    LinkState,
    MeshCreateArgs,
    MeshCreated,
    MeshDetail,
    MeshLeaveArgs,
    MeshLeft,
    MeshList,
    MeshMoveArgs,
    MeshMoved,
    MeshSummary,
    Up,
    UpArgs,
)
from claudemesh.errors import Unreachable, UsageError
from claudemesh.peer import Peer
from claudemesh.peer.views import MeshView
from claudemesh.types import PeerId

LOCAL_ALIAS: Final = "local"
LEFT_CHECKS: Final = 50
LEFT_CHECK_EVERY_S: Final = 0.1


class Meshes:
    """What a person does with whole meshes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._home = context.home

    async def status(self, args: NoArgs, reply: Reply) -> DaemonStatus:
        """What runs here."""
        config = self._context.config
        return DaemonStatus(
            running=True,
            pid=os.getpid(),
            version=__version__,
            config_dir=str(config.path),
            socket=str(config.socket()),
            started_at=int(read_json(config.record).get("started_at", 0)),
            local_broker=str(read_json(config.local_broker).get("url", "")),
            meshes=[await summary(peer) for peer in self._home.peers],
        )

    async def stop(self, args: NoArgs, reply: Reply) -> Done:
        """End the daemon once this is answered; the connection is closed last of all."""
        self._context.stop()
        return Done()

    async def up(self, args: UpArgs, reply: Reply) -> Up:
        """Start the embedded broker, and found the mesh `local` on it unless there is one."""
        await reply.progress("starting the embedded broker")
        url = await self._context.start_local_broker()
        known = [peer for peer in self._home.peers if peer.alias == LOCAL_ALIAS]
        if known:
            await self._home.settle(known[0])
            return Up(broker_url=url, created=False, mesh=await summary(known[0]))
        peer, _ = await self._home.create(LOCAL_ALIAS, url, args.name, args.device, say_to(reply), with_recovery=False)
        return Up(broker_url=url, created=True, mesh=await summary(peer))

    async def create(self, args: MeshCreateArgs, reply: Reply) -> MeshCreated:
        """Found a mesh."""
        _check_url(args.broker_url)
        peer, founded = await self._home.create(args.alias, args.broker_url, args.name, args.device, say_to(reply))
        return MeshCreated(mesh=await summary(peer), recovery_words=founded.recovery or "")

    async def list(self, args: NoArgs, reply: Reply) -> MeshList:
        """Every mesh."""
        return MeshList(meshes=[await summary(peer) for peer in self._home.peers])

    async def show(self, args: InMesh, reply: Reply) -> MeshDetail:
        """One mesh, with its roster's head."""
        peer = self._home.peer(args.mesh)
        view = await peer.describe_mesh()
        return MeshDetail(
            mesh=await summary(peer),
            peer=peer.id,
            user=peer.user,
            broker_key=view.broker,
            seq=view.seq,
            head=view.head,
            head_number=identity.safety_number(PeerId(view.head), PeerId(view.id)),
            signed_at=view.head_at,
            conflict=_conflict(peer),
        )

    async def leave(self, args: MeshLeaveArgs, reply: Reply) -> MeshLeft:
        """Leave a mesh, and delete its keys once the roster says so, or at once when they are to be forgotten."""
        if not args.mesh:
            raise UsageError("usage", "name the mesh to leave")
        peer = self._home.peer(args.mesh)
        alias, mesh = peer.alias, peer.mesh
        revoked = peer.connected or not args.forget
        if revoked:
            await reply.progress("telling the roster")
            await _leave(peer)
        await self._home.forget(peer)
        return MeshLeft(alias=alias, id=mesh, revoked=revoked)

    async def move(self, args: MeshMoveArgs, reply: Reply) -> MeshMoved:
        """Move a mesh to another broker."""
        _check_url(args.broker_url)
        peer = self._home.peer(args.mesh)
        before = await peer.describe_mesh()
        await reply.progress("handing the roster to the new broker")
        await peer.move_mesh(args.broker_url)
        return MeshMoved(mesh=await summary(peer), from_url=before.broker_url)


async def _leave(peer: Peer) -> None:
    """Leave; a broker may close the link before it answers, and then says so to the next hello."""
    try:
        await peer.leave()
    except Unreachable:
        for _ in range(LEFT_CHECKS):
            if (await peer.describe_mesh()).down.startswith(("revoked", "unknown_peer")):
                return
            await asyncio.sleep(LEFT_CHECK_EVERY_S)
        raise


async def summary(peer: Peer) -> MeshSummary:
    """One mesh as every list shows it."""
    view = await peer.describe_mesh()
    own = peer.view(peer.id)
    return MeshSummary(
        alias=view.alias,
        id=view.id,
        address=own.address if own is not None else peer.address,
        role=own.role if own is not None else "member",
        broker_url=view.broker_url,
        members=view.peers,
        link=_link(view),
        link_problem="" if view.connected else view.down.split(" ", 1)[0],
        frozen=bool(view.frozen),
        queued=view.outbox_open,
        unread=view.inbox_unseen,
        held=view.held,
        paused_since=view.paused_since,
        dnd_since=view.dnd_since,
    )


def _link(view: MeshView) -> LinkState:
    if view.connected:
        return "open"
    return "closed" if view.down else "connecting"


def _conflict(peer: Peer) -> dict[str, object]:
    frozen = peer.frozen
    if frozen is None:
        return {}
    return {"code": frozen.code, "at": frozen.at, "statements": [{"b": one.b, "k": one.k} for one in frozen.proof]}


def _check_url(url: str) -> None:
    if not url.startswith(("ws://", "wss://", "unix:///")):
        raise UsageError("usage", "a broker's URL begins with wss://, ws:// or unix:///")
