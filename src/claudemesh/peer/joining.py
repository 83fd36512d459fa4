"""Joining a mesh by an invite link (docs/spec/roster.md §7)."""

import asyncio
from dataclasses import dataclass

import msgspec

from claudemesh.crypto.invite import InviteLink, parse_link
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import (
    ClaudemeshError,
    HandshakeRefused,
    Invalid,
    LinkRefused,
    Refused,
    RosterRefused,
    Unreachable,
)
from claudemesh.peer import contents
from claudemesh.peer.config import BrokerAddress, LogPin, MeshKeys, UserKeys, make_peer
from claudemesh.peer.events import Hub
from claudemesh.peer.line import Line, dial
from claudemesh.peer.membership import Membership
from claudemesh.peer.surroundings import Progress, Surroundings
from claudemesh.protocol.link import LinkHolder
from claudemesh.protocol.messages import Log, Sync
from claudemesh.protocol.roster import Invite, Roster, entry_digest
from claudemesh.types import InviteId, MeshId


@dataclass(frozen=True, slots=True)
class Joined:
    """A mesh that this device is a peer of now."""

    mesh: MeshId
    alias: str
    peers: int


async def join(
    around: Surroundings,
    link: str,
    *,
    name: str,
    device: str,
    alias: str | None = None,
    progress: Progress = lambda _: None,
) -> Joined:
    """Join the mesh of an invite link; nobody else needs to be online.

    Args:
        name: Empty for the one that the link suggests.

    Raises:
        LinkRefused: The link is damaged, spent, expired, revoked, unknown or for another mesh; nothing was joined.
        UsageError: A name cannot be one.
        HandshakeRefused: The broker is not the one that the mesh names.
        Unreachable: The broker did not answer; when it fails in the middle, the same call goes on.
    """
    parsed = parse_link(link)
    name = contents.require_name(name or contents.as_label(parsed.joiner_label), "a name")
    device = contents.require_name(device, "a device")
    for known in around.keystore.meshes:
        if known.mesh.startswith(parsed.mesh_prefix) and not known.joining:
            raise LinkRefused("already_member", known.alias)
    progress("contacting the broker")
    holder = LinkHolder(parsed.invite_key(), parsed.mesh_prefix)
    try:
        line, _ = await dial(around.connect, parsed.broker_url, None, holder, around.runtime)
    except Refused as error:
        if error.code == "invalid":
            raise LinkRefused("no_grant") from error
        raise
    reading = asyncio.create_task(line.run(lambda _: None))
    try:
        return await _Joining(around, parsed, line, name, device, alias, progress).run()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await line.close()


class _Joining:
    """One attempt to join, over an open line."""

    def __init__(
        self,
        around: Surroundings,
        link: InviteLink,
        line: Line,
        name: str,
        device: str,
        alias: str | None,
        progress: Progress,
    ) -> None:
        self._around = around
        self._link = link
        self._line = line
        self._name = name
        self._device = device
        self._alias = alias
        self._progress = progress
        self._invite = link.invite_key()

    async def run(self) -> Joined:
        mesh = await self._learn_mesh()
        roster = await self._verify_log(mesh)
        keys = self._prepare_keys(mesh, roster.roster)
        if roster.roster.member(keys.member) is None:
            await self._admit(roster, keys)
        self._progress("admitted")
        pin = LogPin(roster.roster.seq, roster.roster.head)
        self._around.keystore.put_mesh(msgspec.structs.replace(keys, joining=False, log=pin))
        self._around.keystore.set_labels(self._name, self._device)
        return Joined(mesh, keys.alias, len(roster.roster.active_members()))

    async def _learn_mesh(self) -> MeshId:
        """The mesh id is the hash of the genesis, half of which the link names: no broker can sell another mesh."""
        log = await self._line.request(Sync(rid=0, seq=0), Log)
        if not log.entries or log.seq != 0:
            raise LinkRefused("wrong_mesh", "the broker shows no genesis")
        try:
            mesh = MeshId(entry_digest(log.entries[0]))
        except Invalid as error:
            raise LinkRefused("wrong_mesh") from error
        if not mesh.startswith(self._link.mesh_prefix):
            raise LinkRefused("wrong_mesh")
        return mesh

    async def _verify_log(self, mesh: MeshId) -> Membership:
        self._progress("verifying the roster")
        around = self._around
        membership = Membership(mesh, LogPin(0, mesh), around.journal, Hub(), around.runtime)
        await membership.load()
        await membership.catch_up(self._line)
        if membership.roster.broker != self._line.broker:
            raise HandshakeRefused("broker_key")
        return membership

    def _prepare_keys(self, mesh: MeshId, roster: Roster) -> MeshKeys:
        """Keys of an attempt that was cut short, or new ones; on disk before they are published."""
        keystore, runtime = self._around.keystore, self._around.runtime
        for known in keystore.meshes:
            if known.mesh == mesh:
                return known
        invite = self._check_invite(roster)
        keys = MeshKeys(
            mesh=mesh,
            alias=keystore.free_alias(self._alias or contents.as_label(self._link.mesh_label) or "mesh"),
            broker=BrokerAddress(self._link.broker_url, self._line.broker),
            peer=make_peer(runtime.entropy(64), runtime.now()),
            log=LogPin(roster.seq, roster.head),
            name=self._name,
            device=self._device,
            user=self._user(invite),
            inviter=contents.as_label(self._link.inviter_label),
            joining=True,
        )
        keystore.put_mesh(keys)
        return keys

    def _user(self, invite: Invite) -> UserKeys | None:
        """The identity to join with, where the invite fixes one that is not our own."""
        own = self._around.keystore.identity(self._around.runtime)
        if invite.user is None or invite.user == own.user:
            return None
        handed_over = self._link.user_key()
        if handed_over is not None and handed_over.public == invite.user:
            return UserKeys(invite.user, handed_over.secret[:32].hex())
        return UserKeys(invite.user)

    def _check_invite(self, roster: Roster) -> Invite:
        state = roster.invite_state(InviteId(self._invite.public), self._around.runtime.now())
        codes = {
            "unknown": "no_grant",
            "expired": "invite_expired",
            "exhausted": "invite_exhausted",
            "revoked": "invite_revoked",
        }
        if state in codes:
            raise LinkRefused(codes[state])
        return roster.invites[InviteId(self._invite.public)]

    async def _admit(self, membership: Membership, keys: MeshKeys) -> None:
        self._progress("asking to be admitted")
        user = keys.user or self._around.keystore.identity(self._around.runtime)
        signers: list[SigningKey] = [self._invite, keys.peer.key()]
        invite = membership.roster.invites.get(InviteId(self._invite.public))
        if invite is not None and invite.user is None:
            signers.append(user.key())
        member = {"sign": keys.peer.sign, "box": keys.peer.boxes[-1].box, "user": user.user}
        try:
            await membership.append(self._line, "admit", signers, by=self._invite.public, m=member)
        except (RosterRefused, Refused) as error:
            await self._around.withdraw(keys)
            raise _link_refusal(error) from error
        except Unreachable:
            raise  # whether the admission was stored is unknown: the keys stay, and the next attempt finds out
        except ClaudemeshError:
            await self._around.withdraw(keys)
            raise


def _link_refusal(error: ClaudemeshError) -> ClaudemeshError:
    """What a refused admission means for the holder of the link."""
    known = ("no_grant", "invite_revoked", "invite_exhausted", "invite_expired")
    for code in known:
        if code in error.detail:
            return LinkRefused(code)
    return error
