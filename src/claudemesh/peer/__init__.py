"""A member of a mesh, in process: the SDK. It knows keys and plaintext, and of a broker only its link."""

from pathlib import Path

from claudemesh import transport
from claudemesh.peer import founding, joining, recovering
from claudemesh.peer.founding import Founded
from claudemesh.peer.joining import Joined
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.peer import Peer
from claudemesh.peer.recovering import Recovered
from claudemesh.peer.runtime import Runtime, Tempo
from claudemesh.peer.surroundings import Surroundings
from claudemesh.peer.views import Received, Submitted
from claudemesh.protocol.delivery import Stage

__all__ = [
    "Founded",
    "Joined",
    "Peer",
    "Received",
    "Recovered",
    "Runtime",
    "Stage",
    "Submitted",
    "Tempo",
    "create_mesh",
    "join",
    "recover",
]


async def create_mesh(
    broker_url: str, *, name: str, device: str, alias: str = "mesh", config_dir: Path | str | None = None
) -> Founded:
    """Create a mesh on a broker, with this device as its owner; raises as `founding.create_mesh`."""
    with _open(config_dir) as keystore:
        async with Journal(keystore.journal_path) as journal:
            around = Surroundings(keystore, journal, transport.connect, Runtime())
            return await founding.create_mesh(around, broker_url, name=name, device=device, alias=alias)


async def join(
    link: str, *, name: str = "", device: str, alias: str | None = None, config_dir: Path | str | None = None
) -> Joined:
    """Join the mesh of an invite link, with nobody else online; raises as `joining.join`."""
    with _open(config_dir) as keystore:
        async with Journal(keystore.journal_path) as journal:
            around = Surroundings(keystore, journal, transport.connect, Runtime())
            return await joining.join(around, link, name=name, device=device, alias=alias)


async def recover(
    words: str,
    *,
    mesh: str | None = None,
    broker_url: str = "",
    mesh_id: str = "",
    name: str = "",
    device: str = "",
    config_dir: Path | str | None = None,
) -> Recovered:
    """Become the owner of a mesh by its recovery words, in place of every owner and admin; see `recovering.recover`."""
    with _open(config_dir) as keystore:
        async with Journal(keystore.journal_path) as journal:
            around = Surroundings(keystore, journal, transport.connect, Runtime())
            return await recovering.recover(
                around, words, mesh=mesh, broker_url=broker_url, mesh_id=mesh_id, name=name, device=device
            )


def _open(config_dir: Path | str | None) -> Keystore:
    return Keystore.open(Path(config_dir) if config_dir is not None else None)
