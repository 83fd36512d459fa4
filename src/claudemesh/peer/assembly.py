"""One peer of one mesh, built and connected in one place."""

from claudemesh.peer.auditing import Auditor
from claudemesh.peer.channel_parts import assemble_channels
from claudemesh.peer.expiring import Expirer
from claudemesh.peer.foundation import lay_foundation
from claudemesh.peer.freshness import Freshness
from claudemesh.peer.grant_book import GrantBook
from claudemesh.peer.holding import Holding
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.line import Connect
from claudemesh.peer.names import NameBook
from claudemesh.peer.outbox_writer import OutboxWriter
from claudemesh.peer.outgoing import Outgoing
from claudemesh.peer.parts import Parts
from claudemesh.peer.presence import PresenceView
from claudemesh.peer.receipts import ReceiptSender
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.uplink import Uplink, UplinkHooks
from claudemesh.types import MeshId


def assemble(keystore: Keystore, journal: Journal, mesh: MeshId, connect: Connect, runtime: Runtime) -> Parts:
    """Build one peer over an opened keystore and journal; nothing runs yet."""
    on = lay_foundation(keystore, journal, mesh, runtime)
    membership, keyring, sessions, hub = on.membership, on.keyring, on.sessions, on.hub
    presence = PresenceView(membership, hub, runtime)
    outgoing = Outgoing(
        membership, on.cards, presence, keyring, sessions, on.attesting, journal, on.tracker, on.clock, runtime
    )
    channels, incoming = assemble_channels(on, outgoing.wake)
    parts = Parts(
        journal=journal,
        runtime=runtime,
        connect=connect,
        hub=hub,
        keyring=keyring,
        membership=membership,
        sessions=sessions,
        attesting=on.attesting,
        cards=on.cards,
        presence=presence,
        tracker=on.tracker,
        incoming=incoming,
        outbox=OutboxWriter(mesh, journal),
        outgoing=outgoing,
        names=NameBook(membership, keyring, sessions, presence, journal, hub, runtime, outgoing.wake),
        grants=GrantBook(membership, keyring, sessions, journal, runtime),
        holding=Holding(membership, keyring, journal, hub, runtime),
        receipts=ReceiptSender(membership, journal, runtime, outgoing.wake),
        auditor=Auditor(membership, journal, hub, runtime),
        expirer=Expirer(membership, keyring, journal, on.tracker, runtime),
        freshness=Freshness(membership, hub),
        uplink=Uplink(on, presence, incoming, outgoing, channels.posting, connect),
        channels=channels,
    )
    _connect(parts)
    return parts


def _connect(parts: Parts) -> None:
    """Tell the parts that were built first of those that came later."""
    reactions, holding = parts.incoming.reactions, parts.holding
    reactions.receipts_due, reactions.outbox_changed = parts.receipts.wake, parts.outgoing.wake
    reactions.profile_arrived, reactions.permit = parts.names.take_profile, parts.grants.judge
    reactions.hold, reactions.unhold = holding.hold, holding.unhold
    parts.outgoing.agents_may_send = parts.channels.posting.agents_may_send = holding.agents_may_send
    parts.uplink.hooks = UplinkHooks(parts.on_link, parts.on_serve)
