"""Grants and blocks of one mesh at a time."""

from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema import policies as schema
from claudemesh.peer import Peer, grants
from claudemesh.peer.administrator import GrantView


class Policies:
    """What a person lets others do."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def grant(self, args: schema.GrantArgs, reply: Reply) -> schema.GrantList:
        """Grant permissions, or take them away."""
        peer = self._home.peer(args.mesh)
        await peer.grant(args.peer, *args.permissions, session=args.session, allowed=not args.revoke)
        return _listed(peer, peer.grants(args.peer))

    async def grants(self, args: schema.GrantsArgs, reply: Reply) -> schema.GrantList:
        """What others may do here."""
        peer = self._home.peer(args.mesh)
        return _listed(peer, peer.grants(args.peer or None))

    async def block(self, args: schema.BlockArgs, reply: Reply) -> schema.GrantList:
        """Refuse everything of a peer or user."""
        peer = self._home.peer(args.mesh)
        await peer.block(args.peer, args.session)
        return _listed(peer, peer.grants(args.peer))

    async def unblock(self, args: schema.UnblockArgs, reply: Reply) -> schema.GrantList:
        """Lift every block of a peer or user."""
        peer = self._home.peer(args.mesh)
        await peer.unblock(args.peer)
        return _listed(peer, peer.grants(args.peer))


def _listed(peer: Peer, views: list[GrantView]) -> schema.GrantList:
    return schema.GrantList(
        mesh=peer.alias,
        default=sorted(grants.DEFAULT),
        peers=[_peer(view) for view in sorted(views, key=lambda one: one.address)],
    )


def _peer(view: GrantView) -> schema.PeerGrants:
    return schema.PeerGrants(
        address=view.address,
        key=view.peer,
        permissions=[one for one in grants.PERMISSIONS if one in view.grants.permissions],
        blocked=view.grants.is_blocked,
        rules=[
            schema.Rule(
                scope="peer" if rule.subject == view.peer else "user",
                key=rule.subject,
                session=rule.session,
                permission=rule.permission,
                allowed=rule.is_allowed,
            )
            for rule in view.rules
        ],
    )
