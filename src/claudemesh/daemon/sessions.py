"""Sessions that are handed to a container or CI job."""

from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema import sessions as schema
from claudemesh.daemon.schema.base import InMesh
from claudemesh.peer.handing_out import HandedOut


class HandedOutSessions:
    """Making, listing and ending them."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def create(self, args: schema.SessionCreateArgs, reply: Reply) -> schema.SessionCreated:
        """Make one."""
        peer = self._home.peer(args.mesh)
        made, content = await peer.hand_out_session(
            args.capabilities, label=args.label, expires_in_ms=args.expires_in_ms
        )
        return schema.SessionCreated(mesh=peer.alias, session=_session(made), bundle=content.decode())

    async def list(self, args: InMesh, reply: Reply) -> schema.SessionList:
        """Every one that is remembered."""
        peer = self._home.peer(args.mesh)
        return schema.SessionList(mesh=peer.alias, sessions=[_session(one) for one in await peer.handed_out()])

    async def end(self, args: schema.SessionEndArgs, reply: Reply) -> schema.SessionEnded:
        """End one before its time."""
        peer = self._home.peer(args.mesh)
        await reply.progress("publishing a card that says so")
        return schema.SessionEnded(mesh=peer.alias, session=_session(await peer.end_handed_out(args.session)))


def _session(made: HandedOut) -> schema.HandedOut:
    return schema.HandedOut(
        session=made.session,
        label=made.label,
        capabilities=list(made.capabilities),
        issued_at=made.issued_at,
        expires_at=made.expires_at,
        ended_at=made.ended_at,
    )
