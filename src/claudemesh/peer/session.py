"""Sessions of this peer: their keys, attestations and counters, in memory only (docs/spec/statements.md §3).

A session key is never stored, so its counters need not be: after a restart there is a new session, and no pair
of session and counter can occur twice.
"""

from dataclasses import dataclass, field

from claudemesh.crypto import identity, primitives
from claudemesh.crypto.identity import CAPABILITIES, Attestation, SessionKeys
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits
from claudemesh.protocol.messages import Status
from claudemesh.types import ChannelId, MeshId, PeerId, SessionId, UnixMillis


@dataclass(slots=True)
class Session:
    """One session that is running now."""

    keys: SessionKeys = field(repr=False)
    label: str
    cwd: str
    tags: tuple[str, ...]
    statement: Statement = field(repr=False)
    attestation: Attestation = field(repr=False)
    status: Status = "idle"
    """What presence says of it."""
    reach: str = ""
    """How a message reaches it, as the other peers are told."""
    about: str = ""
    """What it works at, as the other peers are told."""
    _counters: dict[PeerId | ChannelId, int] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> SessionId:
        return self.keys.id

    def next_counter(self, stream: PeerId | ChannelId) -> int:
        """Allocate the next number of the stream to a peer or channel, from 1."""
        self._counters[stream] = number = self._counters.get(stream, 0) + 1
        return number

    def renewal_due(self, now: UnixMillis) -> bool:
        """Whether less than a quarter of the attestation's lifetime is left, or a clock that was wrong has dated it."""
        issued_at, expires_at = self.attestation.issued_at, self.attestation.expires_at
        return now > expires_at - (expires_at - issued_at) // 4 or issued_at > now + limits.HANDSHAKE_SKEW_MS


class Sessions:
    """The sessions of one peer: the daemon's own, and one for each agent that runs under it."""

    def __init__(self, mesh: MeshId, peer: SigningKey, runtime: Runtime) -> None:
        self._mesh = mesh
        self._peer = peer
        self._runtime = runtime
        self._open: dict[SessionId, Session] = {}
        self.main = self._make("", "")
        """Signs what no agent's session does: receipts, profiles, and messages of the peer as such."""

    def open(self, label: str, cwd: str, tags: tuple[str, ...] = ()) -> Session:
        """Make a session with keys of its own."""
        session = self._make(label, cwd, tags)
        self._open[session.id] = session
        return session

    def close(self, session: SessionId) -> None:
        """Forget a session and its keys."""
        self._open.pop(session, None)
        primitives.forget_shared_keys()

    def get(self, session: SessionId | str | None) -> Session | None:
        """A running session by its id; the daemon's own for None."""
        if session is None or session == self.main.id:
            return self.main
        return self._open.get(SessionId(session))

    def agents(self) -> list[Session]:
        """The sessions that agents run in, in the order of their opening."""
        return list(self._open.values())

    def all(self) -> list[Session]:
        """Every running session."""
        return [self.main, *self._open.values()]

    def renew(self, session: Session) -> Session:
        """Attest a session anew.

        An agent's session keeps its keys, because others address it by them. The daemon's own gets new ones: what
        it sent before can then not be opened with keys stolen later.
        """
        if session is self.main:
            self.main = self._make("", "")
            primitives.forget_shared_keys()
            return self.main
        session.statement, session.attestation = self._attest(session.keys)
        return session

    def _make(self, label: str, cwd: str, tags: tuple[str, ...] = ()) -> Session:
        keys = identity.session_keys(self._runtime.entropy(64))
        statement, attestation = self._attest(keys)
        return Session(keys, label, cwd, tags, statement, attestation)

    def _attest(self, keys: SessionKeys) -> tuple[Statement, Attestation]:
        lifetime_ms = self._runtime.tempo.session_lifetime_ms
        statement = identity.attest(self._peer, self._mesh, keys, self._runtime.now(), lifetime_ms, CAPABILITIES)
        return statement, identity.open_attestation(statement)
