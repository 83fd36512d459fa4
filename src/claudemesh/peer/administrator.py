"""What a person decides: who belongs to the mesh, who may do what here, which head to trust (docs/sdk.md §9)."""

from collections.abc import Iterable
from dataclasses import dataclass

from claudemesh.errors import AddressError, UsageError
from claudemesh.peer import administration, branches, contents, grants, handing_out, roster_history
from claudemesh.peer.addressing import Target
from claudemesh.peer.administration import ClosedInvite, Revoked
from claudemesh.peer.branches import Branch, Heads
from claudemesh.peer.channels import ChannelMember
from claudemesh.peer.grants import Grants, Permission, Rule
from claudemesh.peer.handing_out import HandedOut
from claudemesh.peer.roster_history import HistoryEntry
from claudemesh.peer.views import InviteView
from claudemesh.protocol import limits
from claudemesh.protocol.roster_entry import REVOKE_REASONS
from claudemesh.types import InviteId, PeerId, Role


@dataclass(frozen=True, slots=True)
class GrantView:
    """What one peer may do here, and the decisions that it follows from."""

    peer: PeerId
    address: str
    grants: Grants
    """At the peer as such; single sessions of ours may differ."""
    rules: tuple[Rule, ...]


class Administrator(ChannelMember):
    """The part of a peer that decides."""

    def resolve(self, address: str) -> Target:
        """What an address stands for; raises `AddressError` with candidates when that is not clear."""
        return self._parts.names.resolve(address)

    # The roster

    async def invite(
        self,
        *,
        uses: int = 1,
        expires_in_ms: int = limits.DAY_MS,
        role: Role = "member",
        personal: bool = False,
        device: bool = False,
        name: str = "",
    ) -> tuple[str, InviteId]:
        """Make an invite link; see `administration.invite`."""
        return await administration.invite(
            self._parts, uses=uses, expires_in_ms=expires_in_ms, role=role, personal=personal, device=device, name=name
        )

    def invites(self) -> list[InviteView]:
        """Every invite that the roster ever held."""
        return administration.invites(self._parts)

    async def uninvite(self, prefix: str, *, with_members: bool = False) -> ClosedInvite:
        """Close an invite; on demand also remove whom it admitted."""
        return await administration.uninvite(self._parts, prefix, with_members=with_members)

    async def revoke(self, address: str, why: str = "removed", *, close_invites: bool = False) -> Revoked:
        """Remove the peer, or the user with every peer, that an address stands for; see `administration.revoke`.

        An address of our own user stands for our other devices.
        """
        if why not in REVOKE_REASONS:
            raise UsageError("usage", f"a reason is one of {', '.join(REVOKE_REASONS)}")
        return await administration.revoke(self._parts, self._peers_of(address), why, close_invites=close_invites)

    async def set_role(self, address: str, role: Role) -> tuple[PeerId, ...]:
        """Make a peer, or every peer of a user, a member, admin or owner; returns those that were something else."""
        return await administration.set_role(self._parts, self._peers_of(address), role)

    async def leave(self) -> None:
        """Remove this peer from the roster; its keys can then be forgotten."""
        await administration.leave(self._parts)

    async def move_mesh(self, url: str) -> None:
        """Move the mesh to the broker at `url`; see `administration.move`."""
        await administration.move(self._parts, url)

    async def rekey(self) -> bool:
        """Replace this peer's box key because the old one may be stolen; see `administration.rekey`."""
        return await administration.rekey(self._parts)

    def history(self, from_seq: int = 0) -> list[HistoryEntry]:
        """The roster in words, from entry `from_seq` on: who admitted whom, by which invite."""
        return roster_history.tell(self._parts, from_seq)

    # Heads

    async def heads(self) -> Heads:
        """Our head of the roster, the broker's, those that peers named; and while the mesh is frozen, both branches."""
        return await branches.show_heads(self._parts)

    async def trust(self, head: str) -> tuple[Branch, bool]:
        """Resolve a freeze by a person's decision for one of the heads; see `branches.trust`."""
        decided = await branches.trust(self._parts, head)
        self._parts.outgoing.wake()
        return decided

    # Grants

    async def grant(
        self, address: str, *permissions: Permission, session: str = "", allowed: bool = True
    ) -> list[Rule]:
        """Let a peer or user do something here, or with `allowed` false no more; docs/spec/grants.md.

        Args:
            session: Label of the session of ours that it is about; empty for all of them.

        Returns:
            The rules that hold now.
        """
        unknown = set(permissions) - set(grants.PERMISSIONS)
        if unknown or not permissions:
            raise UsageError("usage", f"a permission is one of {', '.join(grants.PERMISSIONS)}")
        target = self._peers_of(address)
        return await self._parts.grants.decide(target, permissions, _label(session), allowed=allowed)

    async def block(self, address: str, session: str = "") -> list[Rule]:
        """Take nothing more from a peer or user: each message is refused, with a signed receipt that says so."""
        target = self._peers_of(address)
        if self._parts.keyring.member in target.peers:
            raise UsageError("usage", "a peer does not block itself")
        return await self._parts.grants.block(target, _label(session))

    async def unblock(self, address: str) -> list[Rule]:
        """Lift every block of a peer or user; returns the rules that were lifted."""
        return await self._parts.grants.unblock(self._peers_of(address))

    def grants(self, address: str | None = None) -> list[GrantView]:
        """What the other peers may do here: those that an address stands for, or every one."""
        parts, rules = self._parts, self._parts.grants.rules()
        own = parts.keyring.member
        others = [member.id for member in parts.membership.roster.active_members() if member.id != own]
        members = parts.membership.roster.members
        return [
            GrantView(
                peer,
                parts.names.address_of(peer),
                parts.grants.grants_of(peer),
                tuple(rule for rule in rules if rule.subject in (peer, members[peer].user)),
            )
            for peer in (others if address is None else self._peers_of(address).peers)
        ]

    # Sessions for others

    async def hand_out_session(
        self, capabilities: Iterable[str], *, label: str = "job", expires_in_ms: int = limits.DAY_MS
    ) -> tuple[HandedOut, bytes]:
        """Make a session for a container or CI job, to be used by `Peer.open_session_bundle`; see `handing_out`."""
        return await handing_out.hand_out(self._parts, tuple(capabilities), label, expires_in_ms)

    async def handed_out(self) -> list[HandedOut]:
        """The sessions that were handed out."""
        return await handing_out.list_handed_out(self._parts)

    async def end_handed_out(self, name: str) -> HandedOut:
        """End one before its time; see `handing_out.end`."""
        return await handing_out.end(self._parts, name)

    def _peers_of(self, address: str) -> Target:
        target = self.resolve(address)
        if target.session is not None:
            raise AddressError("unknown_address", f"{address} is a session: name its peer")
        return target


def _label(session: str) -> str:
    return contents.require_name(session, "a session's label") if session else ""
