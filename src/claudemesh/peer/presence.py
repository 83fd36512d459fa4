"""Who is connected, as the broker says; and the session keys that presence carries, as their peers signed them."""

from claudemesh.crypto import identity, statements
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Invalid
from claudemesh.peer import events
from claudemesh.peer.events import Hub
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.messages import SYS_FIELDS, SYS_OPTIONAL, ListPeers, PeerPresence, Peers, SessionPresence
from claudemesh.types import BoxId, BrokerId, PeerId, SessionId, UnixMillis


class PresenceView:
    """The last answer of the broker, and the changes that it announced since."""

    def __init__(self, membership: Membership, hub: Hub, runtime: Runtime) -> None:
        self._membership = membership
        self._hub = hub
        self._runtime = runtime
        self._peers: dict[PeerId, PeerPresence] = {}
        self._attested: dict[str, Attestation] = {}
        self.refreshed_at = UnixMillis(0)
        """0 while nothing is known, as before the first link."""

    def forget(self) -> None:
        """The link is down: nobody knows who is connected."""
        self._peers = {peer: PeerPresence(member=peer, seen=known.seen) for peer, known in self._peers.items()}
        self.refreshed_at = UnixMillis(0)

    async def refresh(self, line: Line) -> None:
        """Ask the broker who is connected."""
        answer = await line.request(ListPeers(rid=0), Peers)
        self._peers = {peer.member: peer for peer in answer.peers}
        self._attested = {}
        for peer in answer.peers:
            for session in peer.sessions:
                self._verify(peer.member, session)
        self.refreshed_at = self._runtime.now()

    def take_sys(self, statement: Statement, broker: BrokerId) -> None:
        """A peer came or went, says the broker of the open link."""
        body = statements.open_statement(statement, "sys", broker)
        statements.check_fields(body, SYS_FIELDS, SYS_OPTIONAL)
        if body["mesh"] != self._membership.mesh or body["ev"] not in ("peer_joined", "peer_left"):
            return
        peer, online = PeerId(body["who"]), body["ev"] == "peer_joined"
        self.refreshed_at = UnixMillis(0)
        if not online:
            self._peers[peer] = PeerPresence(member=peer, seen=body["at"])
        self._hub.publish(events.PresenceChanged(peer, online))

    def of(self, peer: PeerId) -> PeerPresence:
        """What is known of a peer."""
        return self._peers.get(peer) or PeerPresence(member=peer)

    def sessions(self, peer: PeerId) -> list[SessionPresence]:
        """The connected sessions of a peer whose attestations hold."""
        return [session for session in self.of(peer).sessions if session.sess in self._attested]

    def session_box(self, peer: PeerId, session: SessionId) -> BoxId | None:
        """The box key of a connected session, by its peer's own signature."""
        attestation = self._attested.get(session)
        if attestation is None or attestation.member != peer or attestation.expires_at < self._runtime.now():
            return None
        return attestation.box

    def _verify(self, peer: PeerId, session: SessionPresence) -> None:
        try:
            attestation = identity.open_attestation(session.att)
        except Invalid as error:
            self._hub.publish(events.EnvelopeRefused(error.code, peer))
            return
        if (attestation.member, attestation.session, attestation.mesh) == (peer, session.sess, self._membership.mesh):
            self._attested[session.sess] = attestation
