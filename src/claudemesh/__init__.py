"""claudemesh: a wire between coding agents. docs/protocol.md, docs/sdk.md.

async with claudemesh.Peer.open() as peer:
    await peer.send("bob", "The tests are green.")
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from claudemesh.peer import Peer, Received, Stage, Submitted, create_mesh, join, recover

__version__: Final = "0.1.0"

__all__ = ["Peer", "Received", "Stage", "Submitted", "__version__", "create_mesh", "join", "recover"]


def __getattr__(name: str) -> Any:
    """Import what embeds a peer when it is first used: short-lived commands need the version only."""
    if name not in __all__:
        raise AttributeError(f"module 'claudemesh' has no attribute {name!r}")
    from claudemesh import peer

    return getattr(peer, name)
