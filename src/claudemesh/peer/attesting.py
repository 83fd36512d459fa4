"""Publishing sessions: nothing is sealed under an attestation whose time is over (docs/spec/statements.md §3)."""

import asyncio
from typing import Final

from claudemesh.crypto import identity
from claudemesh.errors import Refused, Unreachable
from claudemesh.peer.journal import Journal, keys
from claudemesh.peer.line import Line
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Session, Sessions
from claudemesh.protocol import limits
from claudemesh.protocol.messages import Attest, End, Ok
from claudemesh.types import Digest, MeshId, SessionId, UnixMillis

MARGIN_MS: Final = limits.MINUTE_MS
"""What is submitted with less than this left may arrive too late."""


class Attesting:
    """Tells the broker of the sessions of one peer, and renews them before their time is over."""

    def __init__(self, mesh: MeshId, sessions: Sessions, journal: Journal, runtime: Runtime) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._journal = journal
        self._runtime = runtime
        self._expires_at: dict[Digest, UnixMillis] = {}
        """Of the attestations that the broker of the open link knows."""
        self._late: dict[SessionId, Session] = {}
        """Opened while the broker could not take it."""
        self._renewing = asyncio.Lock()

    def begin_link(self) -> None:
        """A new link: its hello told of the main session, and of no other."""
        self._expires_at.clear()
        self._late.clear()
        self._keep(self._sessions.main)

    async def publish(self, line: Line, session: Session) -> None:
        """Publish a session, or its renewed attestation.

        Without its label, which is often the name of a directory: peers are told it end-to-end, the broker is not.
        """
        await line.request(Attest(rid=0, st=session.statement, status=session.status), Ok)
        self._keep(session)

    async def introduce(self, line: Line) -> None:
        """Publish the agents' sessions on a new link; those whose time is over, or not yet begun, are attested anew."""
        for session in self._sessions.agents():
            if session.renewal_due(self._runtime.now()):
                self._sessions.renew(session)
            await self.publish(line, session)

    async def announce(self, line: Line, session: Session) -> None:
        """Publish a session that was opened now; one that the broker cannot take yet is published before it speaks."""
        try:
            await self.publish(line, session)
        except (Refused, Unreachable):
            self._late[session.id] = session

    async def renew_due(self, line: Line) -> None:
        """Attest anew the sessions whose time runs out: now and then, and before anything is sealed.

        A machine that slept wakes with sessions whose time is over, and with messages to send.
        """
        if not self._late and not self._due():
            return
        async with self._renewing:
            while self._late:
                late = next(iter(self._late.values()))
                if self._sessions.get(late.id) is late:
                    await self.publish(line, late)
                self._late.pop(late.id, None)
            for session in self._due():
                renewed = self._sessions.renew(session)
                await self.publish(line, renewed)
                if renewed.id != session.id:
                    await line.post(End(sess=session.id))

    async def is_published(self, line: Line, digest: Digest) -> bool:
        """See that the broker knows an attestation that a sealed message names; False when it is worth nothing now."""
        latest = self._runtime.now() + MARGIN_MS
        if digest in self._expires_at:
            return self._expires_at[digest] > latest
        statement = await self._journal.read(lambda connection: keys.load_attestation(connection, self._mesh, digest))
        if statement is None:
            return False
        attestation = identity.open_attestation(statement)
        if attestation.expires_at <= latest:
            return False
        await line.request(Attest(rid=0, st=statement, live=False), Ok)
        self._expires_at[digest] = attestation.expires_at
        return True

    def _due(self) -> list[Session]:
        now = self._runtime.now()
        return [session for session in self._sessions.all() if session.renewal_due(now)]

    def _keep(self, session: Session) -> None:
        self._expires_at[session.attestation.digest] = session.attestation.expires_at
