"""Creating a mesh, with this device as its owner (docs/spec/roster.md §7)."""

from dataclasses import dataclass

import msgspec

from claudemesh.errors import ClaudemeshError
from claudemesh.peer import contents
from claudemesh.peer.config import BrokerAddress, LogPin, MeshKeys, PeerKeys, make_peer
from claudemesh.peer.journal import membership
from claudemesh.peer.recovery import SECRET_BYTES, recovery_key, write_recovery
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.surroundings import Progress, Surroundings
from claudemesh.peer.uploading import broker_at, upload_log
from claudemesh.protocol.roster import Entry, Roster, entry_digest, sign_entry
from claudemesh.types import BrokerId, MeshId


@dataclass(frozen=True, slots=True)
class Founded:
    """A mesh that was created. `recovery` is shown once and kept nowhere; None when it was declined."""

    mesh: MeshId
    alias: str
    recovery: str | None


async def create_mesh(
    around: Surroundings,
    broker_url: str,
    *,
    name: str,
    device: str,
    alias: str,
    with_recovery: bool = True,
    progress: Progress = lambda _: None,
) -> Founded:
    """Create a mesh on the broker at `broker_url`, with this device as its owner.

    Args:
        name, device, alias: 1 to 40 visible characters each; none of them leaves this machine unencrypted.

    Raises:
        UsageError: A name cannot be one.
        Unreachable, HandshakeRefused, Refused: No mesh was created.
        LocalError: Nothing was published.
    """
    name, device = contents.require_name(name, "a name"), contents.require_name(device, "a device")
    keystore, runtime = around.keystore, around.runtime
    for keys in [keys for keys in keystore.meshes if keys.alias == alias and was_cut_off(keys)]:
        await around.withdraw(keys)
    progress("asking the broker for its key")
    broker = await broker_at(around.connect, broker_url, runtime)
    secret = runtime.entropy(SECRET_BYTES) if with_recovery else None
    recovery = recovery_key(secret).public if secret is not None else None
    peer = make_peer(runtime.entropy(64), runtime.now())
    genesis = _genesis(peer, keystore.identity(runtime).user, broker, recovery, runtime)
    mesh = MeshId(entry_digest(genesis))
    keys = MeshKeys(
        mesh=mesh,
        alias=keystore.free_alias(alias),
        broker=BrokerAddress(broker_url, broker),
        peer=peer,
        log=LogPin(0, mesh),
        name=name,
        device=device,
        recovery=recovery,
        joining=True,
    )
    keystore.put_mesh(keys)
    await _publish(around, keys, genesis, progress)
    keystore.put_mesh(msgspec.structs.replace(keys, joining=False))
    keystore.set_labels(name, device)
    return Founded(mesh, keys.alias, write_recovery(secret) if secret is not None else None)


def was_cut_off(keys: MeshKeys) -> bool:
    """Whether a `create_mesh` that was killed left these keys: nobody has seen the mesh or its recovery words."""
    return keys.joining and keys.log == LogPin(0, keys.mesh)


async def _publish(around: Surroundings, keys: MeshKeys, genesis: Entry, progress: Progress) -> None:
    """Hand the broker the genesis; the keys of what is not published are forgotten."""
    try:
        progress("publishing the mesh")
        await around.journal.write(lambda connection: membership.append_entries(connection, keys.id, 0, [genesis]))
        await upload_log(around.connect, keys.broker.url, keys.broker_id, [genesis], around.runtime)
    except ClaudemeshError:
        await around.withdraw(keys)
        raise


def _genesis(peer: PeerKeys, user: str, broker: BrokerId, recovery: str | None, runtime: Runtime) -> Entry:
    """The first entry of a mesh, which the id of the mesh is the digest of."""
    optional = {"rec": recovery} if recovery is not None else {}
    body = Roster().next_body(
        "genesis",
        runtime.now(),
        by=peer.sign,
        m={"sign": peer.sign, "box": peer.boxes[0].box, "user": user},
        bk=broker,
        nonce=runtime.entropy(16).hex(),
        **optional,
    )
    return sign_entry(body, peer.key())
