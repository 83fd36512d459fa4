"""Taking a mesh back by its recovery key: a new owner in place of every owner and admin (docs/spec/recovery.md §2).

Nobody else has to be online, and this device need not be in the mesh. Its new keys are written, marked `joining`,
before the entry is appended, so that the same call goes on where a crash stopped it.
"""

import asyncio
import sqlite3
from dataclasses import dataclass

import msgspec

from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import HandshakeRefused, Refused, RosterRefused, UsageError
from claudemesh.peer import contents, rulings
from claudemesh.peer.config import BrokerAddress, LogPin, MeshKeys, make_peer
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import names as name_rows
from claudemesh.peer.line import Line, dial
from claudemesh.peer.membership import Membership
from claudemesh.peer.recovery import read_recovery, recovery_key
from claudemesh.peer.surroundings import Progress, Surroundings
from claudemesh.protocol.link import LinkHolder
from claudemesh.protocol.messages import Log, Sync
from claudemesh.protocol.roster import entry_digest
from claudemesh.types import InviteId, MeshId, PeerId

MESH_PREFIX_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Recovered:
    """This device is the owner of the mesh now, the only one."""

    mesh: MeshId
    alias: str
    removed: tuple[PeerId, ...]
    """Owners and admins that are out: whoever stole a device of theirs is, too."""
    invites: tuple[InviteId, ...]
    """Invites that were open and are closed."""
    former: PeerId | None
    """The peer that this device was before and that is still a member; None when there is none."""


async def recover(
    around: Surroundings,
    words: str,
    *,
    mesh: str | None = None,
    broker_url: str = "",
    mesh_id: str = "",
    name: str = "",
    device: str = "",
    progress: Progress = lambda _: None,
) -> Recovered:
    """Make this device the owner of a mesh, by the words that were printed when it was created.

    The peer of this mesh must not run meanwhile: it is replaced by the new one.

    Args:
        words: As printed; case, spaces and dashes do not matter.
        mesh: Alias of a mesh that this configuration has; its broker and id are then known.
        broker_url, mesh_id: For a device that has no trace of the mesh; the id in at least 32 digits.
        name, device: Of this device; those of the configuration when empty.

    Raises:
        UsageError: The words are mistyped, or the mesh is not named well enough; nothing was changed.
        RosterRefused: `denied`; they are of another mesh. Nothing was changed.
        Refused, Unreachable, HandshakeRefused: As when joining; the same call goes on where it stopped.
    """
    key = recovery_key(read_recovery(words))
    known = _known(around, mesh, mesh_id)
    url, wanted = broker_url or (known.broker.url if known else ""), known.mesh if known else mesh_id.lower()
    if not url or len(wanted) < MESH_PREFIX_DIGITS:
        raise UsageError("usage", "name a mesh of this machine, or give the broker's URL and the mesh id")
    progress("contacting the broker")
    holder = LinkHolder(key, wanted[:MESH_PREFIX_DIGITS])
    try:
        line, _ = await dial(around.connect, url, None, holder, around.runtime)
    except Refused as error:
        if error.code == "invalid":
            raise _not_of_this_mesh() from error
        raise
    reading = asyncio.create_task(line.run(lambda _: None))
    try:
        return await _Recovering(around, line, key, wanted, url, known, name, device, progress).run()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await line.close()


class _Recovering:
    """One attempt, over an open line."""

    def __init__(
        self,
        around: Surroundings,
        line: Line,
        key: SigningKey,
        wanted: str,
        url: str,
        known: MeshKeys | None,
        name: str,
        device: str,
        progress: Progress,
    ) -> None:
        self._around = around
        self._line = line
        self._key = key
        self._wanted = wanted
        self._url = url
        self._known = known
        config = around.keystore.config
        self._name = name or (known.name if known else "") or config.name
        self._device = device or (known.device if known else "") or config.device
        self._progress = progress

    async def run(self) -> Recovered:
        contents.require_name(self._name, "a name")
        contents.require_name(self._device, "a device")
        membership = await self._verify_log(await self._learn_mesh())
        roster = membership.roster
        if roster.recovery != self._key.public:
            raise _not_of_this_mesh()
        leaders = roster.owners | roster.admins
        open_invites = [invite for invite, known in roster.invites.items() if roster.is_open(known)]
        keys = self._prepare_keys(membership)
        if roster.member(keys.member) is None:
            await self._append(membership, keys)
        self._progress("recovered")
        former = self._known.member if self._known is not None and roster.is_active(self._known.member) else None
        await self._settle(keys, membership)
        removed = tuple(sorted(peer for peer in leaders if not roster.is_active(peer)))
        closed = tuple(sorted(invite for invite in open_invites if not roster.is_open(roster.invites[invite])))
        return Recovered(keys.id, keys.alias, removed, closed, former)

    async def _learn_mesh(self) -> MeshId:
        """The mesh id is the hash of the genesis: no broker can have another mesh taken over in its place."""
        log = await self._line.request(Sync(rid=0, seq=0), Log)
        mesh = MeshId(entry_digest(log.entries[0])) if log.entries and log.seq == 0 else MeshId("")
        if not mesh.startswith(self._wanted):
            raise RosterRefused("mesh", "the broker answered with another mesh")
        return mesh

    async def _verify_log(self, mesh: MeshId) -> Membership:
        self._progress("verifying the roster")
        pin = self._known.log if self._known is not None else LogPin(0, mesh)
        membership = Membership(mesh, pin, self._around.journal, Hub(), self._around.runtime)
        await membership.load()
        await membership.catch_up(self._line)
        if membership.roster.broker != self._line.broker:
            raise HandshakeRefused("broker_key")
        return membership

    def _prepare_keys(self, membership: Membership) -> MeshKeys:
        """Keys of an attempt that was cut short, or new ones; on disk before they are published."""
        keystore, runtime = self._around.keystore, self._around.runtime
        for kept in keystore.meshes:
            if kept.mesh == membership.mesh and kept.joining:
                return kept
        roster = membership.roster
        keys = MeshKeys(
            mesh=membership.mesh,
            alias=self._known.alias if self._known is not None else keystore.free_alias("mesh"),
            broker=BrokerAddress(self._url, self._line.broker),
            peer=make_peer(runtime.entropy(64), runtime.now()),
            log=LogPin(roster.seq, roster.head),
            name=self._name,
            device=self._device,
            user=self._known.user if self._known is not None else None,
            recovery=self._key.public,
            joining=True,
        )
        keystore.put_mesh(keys)
        return keys

    async def _append(self, membership: Membership, keys: MeshKeys) -> None:
        self._progress("appending the recovery")
        user = keys.user or self._around.keystore.identity(self._around.runtime)
        member = {"sign": keys.peer.sign, "box": keys.peer.boxes[-1].box, "user": user.user}
        signers = [self._key, keys.peer.key()]
        try:
            await membership.append(self._line, "recover", signers, by=self._key.public, m=member)
        except RosterRefused as error:
            self._around.keystore.remove_mesh(keys)
            raise rulings.in_words("recover", error, None) from error

    async def _settle(self, keys: MeshKeys, membership: Membership) -> None:
        """The new peer takes the place of the old one; everybody has to hear its name anew."""
        keystore, mesh = self._around.keystore, membership.mesh

        def write(connection: sqlite3.Connection) -> None:
            name_rows.forget_profiles_sent(connection, mesh)

        await self._around.journal.write(write)
        pin = LogPin(membership.roster.seq, membership.roster.head)
        owner = msgspec.structs.replace(keys, joining=False, log=pin)
        others = [one for one in keystore.meshes if one.mesh != mesh]
        keystore.save(msgspec.structs.replace(keystore.config, meshes=[*others, owner]))
        keystore.set_labels(self._name, self._device)


def _known(around: Surroundings, alias: str | None, mesh_id: str) -> MeshKeys | None:
    """The mesh as this configuration has it; None when it has no trace of it."""
    usable = [keys for keys in around.keystore.meshes if not keys.joining]
    if mesh_id:
        return next((keys for keys in usable if keys.mesh.startswith(mesh_id.lower())), None)
    return around.keystore.find_mesh(alias) if alias or usable else None


def _not_of_this_mesh() -> RosterRefused:
    return rulings.in_words("recover", RosterRefused("denied", "recovery"), None)
