"""What creating, joining and recovering a mesh need before there is a peer (docs/spec/roster.md §7).

Keys are written to the keystore, marked `joining`, before anything of them is published; the mark goes when the
roster holds them. So a crash between the two costs nothing: the same call goes on where it stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass

from claudemesh.peer.config import MeshKeys
from claudemesh.peer.journal import Journal, membership
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.line import Connect
from claudemesh.peer.runtime import Runtime

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where keys are kept, and how a broker is reached."""

    keystore: Keystore
    journal: Journal
    connect: Connect
    runtime: Runtime

    async def withdraw(self, keys: MeshKeys) -> None:
        """Forget keys that no roster holds."""
        self.keystore.remove_mesh(keys)
        await self.journal.write(lambda connection: membership.forget_entries(connection, keys.id))
