"""Real peers through the public calls of the SDK, each in a configuration directory of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from claudemesh import transport
from claudemesh.peer import Peer, Runtime, Tempo, founding, joining
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.surroundings import Surroundings

TEMPO: Final = Tempo(
    request_timeout_ms=3_000,
    reconnect_min_ms=20,
    reconnect_max_ms=60,
    withheld_window_ms=300,
    receipt_delay_ms=20,
    housekeeping_ms=200,
    audit_ms=600_000,
)
"""Real peers, only less patient."""


async def create_mesh(
    directory: Path,
    broker_url: str,
    runtime: Runtime,
    *,
    alias: str = "team",
    name: str = "alice",
    device: str = "desk",
) -> None:
    """Create a mesh, as its owner's first device does."""
    async with _around(directory, runtime) as around:
        await founding.create_mesh(around, broker_url, name=name, device=device, alias=alias)


async def join(directory: Path, link: str, runtime: Runtime, *, name: str, device: str = "desk") -> None:
    """Join a mesh by a link."""
    async with _around(directory, runtime) as around:
        await joining.join(around, link, name=name, device=device)


@asynccontextmanager
async def _around(directory: Path, runtime: Runtime) -> AsyncIterator[Surroundings]:
    with Keystore.open(directory) as keystore:
        async with Journal(keystore.journal_path) as journal:
            yield Surroundings(keystore, journal, transport.connect, runtime)


async def invite_of(directory: Path, runtime: Runtime, uses: int = 1) -> str:
    """A link of the owner, who goes offline afterwards."""
    async with Peer.open(directory, runtime=runtime) as owner:
        link, _ = await owner.invite(uses=uses)
    return link
