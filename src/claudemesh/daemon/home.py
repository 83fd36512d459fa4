"""The meshes of one configuration directory, each with its peer and its link."""

from pathlib import Path
from typing import Any, Self

from claudemesh.peer.keystore import Keystore


class Home:
    """Opened, no other process has the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.keystore: Keystore | None = None
        self.meshes: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self.keystore = Keystore.open(self._directory)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.keystore is not None:
            self.keystore.close()

    async def start(self) -> None:
        """Open every mesh."""
