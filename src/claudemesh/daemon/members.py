"""Who belongs to a mesh: invites, joining, peers, identities."""

from claudemesh.crypto import identity
from claudemesh.daemon.administration import whos
from claudemesh.daemon.context import Context, say_to
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.meshes import summary
from claudemesh.daemon.schema import members as schema
from claudemesh.daemon.schema.base import InMesh
from claudemesh.daemon.trust import trust_of
from claudemesh.errors import AddressError, UsageError
from claudemesh.peer import Peer
from claudemesh.peer.views import InviteView, PeerView, SessionView
from claudemesh.protocol import limits


class Members:
    """Invites and peers of one mesh at a time."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def invite(self, args: schema.InviteCreateArgs, reply: Reply) -> schema.InviteCreated:
        """Issue an invite; a personal one hands over a fresh user identity."""
        peer, lifetime_ms = self._home.peer(args.mesh), _lifetime(args.expires_in_ms)
        await reply.progress("adding the invite to the roster")
        personal = bool(args.person)
        link, _ = await peer.invite(uses=args.uses, expires_in_ms=lifetime_ms, personal=personal, name=args.person)
        return _created(peer, link, args.person)

    async def link_device(self, args: schema.DeviceLinkArgs, reply: Reply) -> schema.InviteCreated:
        """Issue an invite for further devices of this user."""
        peer, lifetime_ms = self._home.peer(args.mesh), _lifetime(args.expires_in_ms)
        await reply.progress("adding the invite to the roster")
        link, _ = await peer.invite(uses=args.uses, expires_in_ms=lifetime_ms, device=True)
        return _created(peer, link, "")

    async def invites(self, args: InMesh, reply: Reply) -> schema.InviteList:
        """Every invite of the roster."""
        peer = self._home.peer(args.mesh)
        return schema.InviteList(mesh=peer.alias, invites=[_invite(peer, one) for one in peer.invites()])

    async def revoke_invite(self, args: schema.InviteRevokeArgs, reply: Reply) -> schema.InviteRevoked:
        """Close an invite."""
        peer = self._home.peer(args.mesh)
        await reply.progress("closing the invite in the roster")
        closed = await peer.uninvite(args.invite, with_members=args.with_members)
        return schema.InviteRevoked(
            mesh=peer.alias,
            id=closed.id,
            removed=whos(peer, closed.revoked),
            kept=whos(peer, closed.kept),
            rotated=closed.rotated,
        )

    async def join(self, args: schema.JoinArgs, reply: Reply) -> schema.Joined:
        """Become a peer of a mesh."""
        peer = await self._home.join(args.link, args.alias, args.name, args.device, say_to(reply))
        return schema.Joined(mesh=await summary(peer))

    async def peers(self, args: InMesh, reply: Reply) -> schema.PeerList:
        """Every active peer, this device first."""
        peer = self._home.peer(args.mesh)
        rows = sorted(await peer.peers(), key=lambda one: (not one.me, not one.own, one.address))
        as_of = max((one.as_of for one in rows), default=0)
        return schema.PeerList(
            mesh=peer.alias, presence=peer.connected, as_of=as_of, peers=[_peer(one) for one in rows]
        )

    async def whoami(self, args: schema.WhoAmIArgs, reply: Reply) -> schema.WhoAmI:
        """This device in each mesh."""
        return schema.WhoAmI(identities=[_identity(peer) for peer in self._home.selected(args.mesh)])

    async def verify(self, args: schema.VerifyArgs, reply: Reply) -> schema.Verification:
        """The digits to compare with one peer."""
        peer = self._home.peer(args.mesh)
        target = peer.resolve(args.peer)
        if len(target.peers) != 1:
            raise AddressError("ambiguous_address", f"{args.peer} has {len(target.peers)} devices; name one")
        (key,) = target.peers
        number = identity.safety_number(peer.id, key)
        name = await peer.confirm_name(key) if args.matches else ""
        return schema.Verification(
            mesh=peer.alias, address=peer.address_of(key), key=key, safety_number=number, name=name
        )


def _lifetime(expires_in_ms: int) -> int:
    if not 0 < expires_in_ms <= limits.INVITE_MAX_MS:
        raise UsageError("usage", "an invite works for more than 0 and at most 90 days")
    return expires_in_ms


def _created(peer: Peer, link: str, person: str) -> schema.InviteCreated:
    made = peer.invites()[-1]
    return schema.InviteCreated(
        mesh=peer.alias, id=made.id, link=link, person=person, uses=made.uses, expires_at=made.expires_at
    )


def _invite(peer: Peer, view: InviteView) -> schema.Invite:
    issuer = peer.view(view.issuer)
    own_device = issuer is not None and issuer.user == view.for_user
    return schema.Invite(
        id=view.id,
        kind="open" if view.for_user is None else "device" if own_device else "personal",
        role=view.role,
        uses=view.uses,
        used=view.used,
        expires_at=view.expires_at,
        state=view.state,
        issuer=peer.address_of(view.issuer),
    )


def _peer(view: PeerView) -> schema.Peer:
    connected = [one for one in view.sessions if one.online]
    return schema.Peer(
        address=view.address,
        key=view.id,
        user=view.name,
        device=view.device,
        role=view.role,
        trust=trust_of(view),
        online=view.online,
        last_seen_at=view.last_seen,
        sessions=[_session(one) for one in connected],
    )


def _session(view: SessionView) -> schema.Session:
    return schema.Session(
        label=view.label, key=view.id, status=view.status, reach=view.reach, about=view.about, tags=list(view.tags)
    )


def _identity(peer: Peer) -> schema.Identity:
    own = peer.view(peer.id)
    return schema.Identity(
        mesh=peer.alias,
        mesh_id=peer.mesh,
        address=own.address if own is not None else peer.address,
        user=own.name if own is not None else "",
        user_key=peer.user,
        device=own.device if own is not None else "",
        peer=peer.id,
        role=own.role if own is not None else "",
    )
