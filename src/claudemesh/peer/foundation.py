"""What every part of a peer stands on: its keys, its replica of the roster, its sessions, its journal, its clock."""

from dataclasses import dataclass

from claudemesh.peer.attesting import Attesting
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.link_clock import LinkClock
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Sessions
from claudemesh.peer.tracking import Tracker
from claudemesh.types import MeshId


@dataclass(frozen=True, slots=True)
class Foundation:
    """The parts of a peer that the others share."""

    journal: Journal
    runtime: Runtime
    hub: Hub
    keyring: Keyring
    membership: Membership
    sessions: Sessions
    attesting: Attesting
    cards: CardDirectory
    tracker: Tracker
    clock: LinkClock


def lay_foundation(keystore: Keystore, journal: Journal, mesh: MeshId, runtime: Runtime) -> Foundation:
    """Build it for one mesh, over an opened keystore and journal."""
    hub = Hub()
    keyring = Keyring(keystore, mesh, runtime)
    membership = Membership(mesh, keyring.keys.log, journal, hub, runtime)
    sessions = Sessions(mesh, keyring.sign, runtime)
    return Foundation(
        journal=journal,
        runtime=runtime,
        hub=hub,
        keyring=keyring,
        membership=membership,
        sessions=sessions,
        attesting=Attesting(mesh, sessions, journal, runtime),
        cards=CardDirectory(membership, keyring, journal, hub, runtime),
        tracker=Tracker(hub),
        clock=LinkClock(runtime),
    )
