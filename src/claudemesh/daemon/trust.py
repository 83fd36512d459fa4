"""How far this machine trusts the key of a peer."""

from claudemesh.daemon.schema.members import Trust
from claudemesh.peer.views import PeerView


def trust_of(view: PeerView) -> Trust:
    """What this machine knows of a peer beyond its key; a name that is contested or missing counts for nothing."""
    if view.me:
        return "this device"
    if view.own:
        return "own device"
    return "unknown" if view.id.startswith(view.address) else "pinned"
