"""Decisions about the roster: removals, roles, new keys, recovery, and a mesh that is frozen."""

from collections.abc import Iterable

from claudemesh.crypto import identity
from claudemesh.daemon.context import Context, say_to
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.meshes import summary
from claudemesh.daemon.schema import administration as schema
from claudemesh.daemon.schema.base import InMesh
from claudemesh.peer import Peer, branches
from claudemesh.peer.journal.branches import Decision
from claudemesh.types import PeerId


class Administration:
    """What an owner, an admin, or the holder of a key decides."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def revoke(self, args: schema.RevokeArgs, reply: Reply) -> schema.Revoked:
        """Remove a peer or user."""
        peer = self._home.peer(args.mesh)
        await reply.progress("removing it from the roster, and making new secrets for the channels")
        done = await peer.revoke(args.peer, args.reason, close_invites=args.close_invites)
        return schema.Revoked(
            mesh=peer.alias, peers=whos(peer, done.peers), invites=list(done.invites), rotated=done.rotated
        )

    async def role(self, args: schema.RoleArgs, reply: Reply) -> schema.RoleGiven:
        """Give a role."""
        peer = self._home.peer(args.mesh)
        changed = await peer.set_role(args.peer, args.role)
        return schema.RoleGiven(mesh=peer.alias, role=args.role, changed=whos(peer, changed))

    async def rekey(self, args: InMesh, reply: Reply) -> schema.Rekeyed:
        """Replace this peer's box key."""
        peer = self._home.peer(args.mesh)
        await reply.progress("replacing the box key, and making new secrets for the channels")
        rotated = await peer.rekey()
        card = self._home.keystore.mesh(peer.mesh).peer.boxes[0].cs
        return schema.Rekeyed(mesh=peer.alias, card=card, rotated=rotated)

    async def recover(self, args: schema.RecoverArgs, reply: Reply) -> schema.Recovered:
        """Become the owner by the recovery words."""
        peer, recovered, rotated = await self._home.recover(
            args.words, args.mesh, args.broker_url, args.mesh_id, args.name, args.device, say_to(reply)
        )
        return schema.Recovered(
            mesh=await summary(peer),
            removed=whos(peer, recovered.removed),
            invites=list(recovered.invites),
            rotated=rotated,
        )

    async def log(self, args: schema.MeshLogArgs, reply: Reply) -> schema.MeshLog:
        """The roster in words."""
        peer = self._home.peer(args.mesh)
        entries = [
            schema.LogEntry(
                seq=one.seq,
                at=one.at,
                op=one.op,
                text=one.text,
                by=one.by,
                by_address=one.by_address,
                who=one.who,
                who_address=one.who_address,
                invite=one.invite,
                signers=list(one.signers),
                head=one.head,
            )
            for one in peer.history(args.from_seq)
        ]
        return schema.MeshLog(mesh=peer.alias, entries=entries)

    async def heads(self, args: InMesh, reply: Reply) -> schema.MeshHeads:
        """Every head that is known."""
        peer = self._home.peer(args.mesh)
        shown = await peer.heads()
        signed = shown.broker
        return schema.MeshHeads(
            mesh=peer.alias,
            seq=shown.seq,
            head=shown.head,
            head_number=_number(shown.head, peer),
            broker_seq=signed.seq if signed is not None else -1,
            broker_head=signed.head if signed is not None else "",
            broker_at=signed.at if signed is not None else 0,
            broker_key=(await peer.describe_mesh()).broker,
            claims=[_claim(one) for one in shown.claims],
            frozen=shown.frozen,
            frozen_at=shown.frozen_at,
            branches=[_branch(one, shown, peer) for one in shown.branches],
            decisions=[_decision(one) for one in shown.decisions],
        )

    async def trust(self, args: schema.TrustArgs, reply: Reply) -> schema.Trusted:
        """Resolve a freeze."""
        peer = self._home.peer(args.mesh)
        branch, reopen = await peer.trust(args.head)
        if reopen:
            await reply.progress("fetching the roster anew")
            peer = await self._home.reopen(peer)
        frozen = peer.frozen
        return schema.Trusted(
            mesh=peer.alias,
            seq=branch.seq,
            head=branch.head,
            own=branch.is_own,
            frozen=frozen.code if frozen is not None else "",
        )


def whos(peer: Peer, keys: Iterable[PeerId]) -> list[schema.Who]:
    """Peers by name and key."""
    return [schema.Who(address=peer.address_of(key), key=key) for key in keys]


def _number(head: str, peer: Peer) -> str:
    return identity.safety_number(PeerId(head), PeerId(peer.mesh))


def _claim(claim: branches.HeadClaim) -> schema.HeadClaim:
    return schema.HeadClaim(
        peer=schema.Who(address=claim.address, key=claim.peer),
        seq=claim.seq,
        head=claim.head,
        signed_at=claim.signed_at,
        relation=claim.relation.value,
        proven=claim.is_proven,
    )


def _branch(branch: branches.Branch, shown: branches.Heads, peer: Peer) -> schema.Branch:
    return schema.Branch(
        seq=branch.seq,
        head=branch.head,
        head_number=_number(branch.head, peer),
        own=branch.is_own,
        broker=branch.broker,
        signed_at=branch.signed_at,
        authors=list(branch.authors),
        followers=list(branch.followers),
        suggested=branch.head == shown.suggested,
    )


def _decision(decision: Decision) -> schema.FreezeDecision:
    return schema.FreezeDecision(
        code=decision.code,
        frozen_at=decision.frozen_at,
        trusted=decision.trusted,
        decided_at=decision.decided_at,
        statements=[{"b": one.b, "k": one.k, "s": one.s} for one in decision.proof],
    )
