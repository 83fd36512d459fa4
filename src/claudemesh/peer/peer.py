"""A member of a mesh, in process (docs/sdk.md)."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from claudemesh import transport
from claudemesh.errors import Unreachable
from claudemesh.peer import contents, listing
from claudemesh.peer.assembly import assemble
from claudemesh.peer.events import Event
from claudemesh.peer.guardian import Guardian
from claudemesh.peer.journal import Journal, inbox, offers, timeline
from claudemesh.peer.journal.inbox import QuarantineRow
from claudemesh.peer.journal.membership import Freeze
from claudemesh.peer.journal.offers import OfferRow
from claudemesh.peer.journal.timeline import Evidence
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.line import Connect
from claudemesh.peer.peer_session import PeerSession
from claudemesh.peer.restricted import RestrictedSession, open_restricted
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Session
from claudemesh.peer.views import MeshView, MessageStatus, PeerView, Received
from claudemesh.protocol.delivery import Stage, has_ended, reaches
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, SessionId, UserId

ANNOUNCED_WITHIN_S: Final = 2.0
"""How long opening a session waits for the broker's answer; it is told all the same."""


class Peer(Guardian):
    """One peer of one mesh: `async with Peer.open() as peer:`."""

    def __init__(
        self,
        keystore: Keystore,
        journal: Journal,
        mesh: MeshId,
        *,
        connect: Connect = transport.connect,
        runtime: Runtime | None = None,
    ) -> None:
        """Describe a peer over an opened keystore and journal; it works while its context is entered."""
        super().__init__(assemble(keystore, journal, mesh, connect, runtime or Runtime()), None)
        self._task: asyncio.Task[None] | None = None
        self._announcing: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config_dir: Path | str | None = None,
        mesh: str | None = None,
        *,
        connect: Connect = transport.connect,
        runtime: Runtime | None = None,
    ) -> AsyncIterator[Self]:
        """Open a configuration directory and run its peer.

        Args:
            config_dir: None means `$CLAUDEMESH_CONFIG_DIR` or `~/.claudemesh`.
            mesh: Alias or id prefix; None where there is only one mesh.

        Raises:
            LocalError: The configuration or the journal cannot be used, or another process has it.
            AddressError: There is no such mesh here.
        """
        with Keystore.open(Path(config_dir) if config_dir is not None else None) as keystore:
            found = keystore.find_mesh(mesh)
            async with Journal(keystore.journal_path) as journal:
                async with cls(keystore, journal, found.id, connect=connect, runtime=runtime) as peer:
                    yield peer

    @staticmethod
    def open_session_bundle(
        path: Path | str, *, connect: Connect = transport.connect, runtime: Runtime | None = None
    ) -> AbstractAsyncContextManager[RestrictedSession]:
        """Open a session that a peer handed out, from its file; see `restricted.open_restricted`."""
        return open_restricted(Path(path), connect=connect, runtime=runtime)

    async def __aenter__(self) -> Self:
        await self._parts.load()
        self._task = asyncio.create_task(self._parts.run(), name=f"peer {self.id[:8]}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        for task in self._announcing:
            task.cancel()
        await self._parts.outbox.finish()
        try:
            await asyncio.wait({self._task})  # what a task ended with is for `wait_ended`, not for who leaves
        finally:
            self._parts.hub.close()
            self._parts.save_progress()

    async def wait_ended(self) -> None:
        """Return never, or raise what ended this peer's work: a defect, or a journal that is lost."""
        assert self._task is not None
        await asyncio.shield(self._task)

    # Who and where

    @property
    def id(self) -> PeerId:
        """This peer's key."""
        return self._parts.keyring.member

    @property
    def user(self) -> UserId:
        """The user that this peer belongs to."""
        return UserId(self._parts.keyring.user.user)

    @property
    def mesh(self) -> MeshId:
        return self._parts.mesh

    @property
    def alias(self) -> str:
        """What this machine calls the mesh."""
        return self._parts.keyring.keys.alias

    @property
    def address(self) -> str:
        """How the others address this peer."""
        return self._parts.names.known_peer(self.id).address if self._in_roster() else self.id[:16]

    @property
    def connected(self) -> bool:
        """Whether there is a synced link to the broker now."""
        return self._parts.uplink.is_open

    @property
    def frozen(self) -> Freeze | None:
        """Why nothing is sent in this mesh, with the proof; None while all is well."""
        return self._parts.membership.frozen

    async def wait_connected(self, timeout_s: float = 30.0) -> None:
        """Wait for a synced link, or raise `Unreachable`."""
        await self._parts.uplink.line(int(timeout_s * 1000))

    async def events(self) -> AsyncIterator[Event]:
        """What happens from now on (claudemesh.peer.events), until the peer is closed."""
        with self._parts.hub.watch() as watch:
            async for event in watch:
                yield event

    async def peers(self) -> list[PeerView]:
        """Every active peer of the roster, with presence as the broker says; without a link, without presence."""
        return await listing.list_peers(self._parts)

    def view(self, peer: PeerId | ChannelId) -> PeerView | None:
        """One active peer, with presence as it was last heard of; None when it is not in the roster, or no peer."""
        member = self._parts.membership.roster.member(PeerId(peer))
        return listing.view_peer(self._parts, member.id) if member is not None and member.active else None

    async def refresh_presence(self) -> None:
        """Ask the broker who is connected, unless it was asked a moment ago or cannot be asked."""
        await listing.refresh_presence(self._parts)

    def address_of(self, peer: PeerId) -> str:
        """An address that means exactly this peer."""
        return self._parts.names.address_of(peer)

    def session_label(self, peer: PeerId, session: SessionId) -> str:
        """What a peer of the roster calls one of its sessions; empty when it has not said, or the session has ended."""
        sessions = self._parts.names.known_peer(peer).sessions
        return next((known.label for known in sessions if known.id == session), "")

    async def describe_mesh(self) -> MeshView:
        """The mesh as this peer holds it."""
        return await listing.describe_mesh(self._parts)

    # Sent messages

    async def status(self, message_id: MessageId) -> MessageStatus:
        """How far a sent message came, with its timeline; raises `AddressError` (`unknown_message`)."""
        return await listing.message_status(self._parts, message_id)

    async def find_message(self, prefix: str) -> MessageId:
        """The id of a sent or received message that begins with `prefix` (4 or more hex digits)."""
        return await listing.find_message(self._parts, prefix)

    async def offers_of(self, message: Received) -> list[OfferRow]:
        """What of a received message was put before which agent's session, and what became of that."""
        return await self._parts.journal.read(lambda connection: offers.load_of_message(connection, message.number))

    async def evidence(self, number: int) -> Evidence | None:
        """The signed bytes behind a step of a timeline."""
        return await self._parts.journal.read(lambda connection: timeline.load_evidence(connection, number))

    async def wait_for(self, message_id: MessageId, stage: Stage | str, timeout_s: float = 60.0) -> MessageStatus:
        """Wait until a message reached a stage at one of its recipients, or ended at all of them.

        Raises:
            Unreachable: `timeout`; the message is not affected.
            AddressError: `unknown_message`.
        """
        wanted = Stage(stage)
        try:
            async with asyncio.timeout(timeout_s):
                with self._parts.tracker.waiting(message_id) as changed:
                    while True:
                        changed.clear()
                        status = await self.status(message_id)
                        shown = [recipient.shown for recipient in status.recipients]
                        if any(reaches(one, wanted) for one in shown) or all(has_ended(one) for one in shown):
                            return status
                        await changed.wait()
        except TimeoutError as error:
            raise Unreachable("timeout", f"{message_id[:8]} is not {wanted} after {timeout_s:g} s") from error

    # Sessions and names

    async def open_session(self, label: str, cwd: str = "", tags: Iterable[str] = ()) -> PeerSession:
        """Open a session with keys of its own, for an agent that runs under this peer.

        Args:
            label: What others address it by; what may not stand in a name becomes a dash.
            cwd: Its working directory; stays on this machine.
            tags: Up to 16 of the form `key=value`, such as `repo=billing`: others reach it by `tag:repo=billing`.
        """
        tags = contents.require_tags(tags)
        session = self._parts.sessions.open(contents.as_label(label) or "session", cwd, tags)
        self._parts.names.announce()
        if self.connected:
            await self._announce(session)
        return PeerSession(self._parts, session.id, session.label)

    async def _announce(self, session: Session) -> None:
        """Tell the broker of a session; nobody waits long for a broker that does not answer."""

        async def announce() -> None:
            with suppress(Unreachable):
                await self._parts.attesting.announce(await self._parts.uplink.line(0), session)

        task = asyncio.create_task(announce())
        self._announcing.add(task)
        task.add_done_callback(self._announced)
        await asyncio.wait({task}, timeout=ANNOUNCED_WITHIN_S)
        if task.done():
            await task

    def _announced(self, task: asyncio.Task[None]) -> None:
        self._announcing.discard(task)
        if not task.cancelled():
            task.exception()  # a refusal that came late: the session is not in presence, and works all the same

    async def rename(self, name: str, device: str) -> None:
        """Change what this peer calls its user and itself, and tell the others."""
        name, device = contents.require_name(name, "a name"), contents.require_name(device, "a device")
        self._parts.keyring.save_labels(name, device)
        await self._parts.names.load()
        self._parts.names.announce()

    async def reject_name(self, name: str, user: UserId) -> None:
        """Decide that a user does not bear a name that two use; it then addresses the other one."""
        await self._parts.names.reject(name, user)

    async def confirm_name(self, peer: PeerId) -> str:
        """Decide that the user of a peer bears its name, whoever else uses it; returns it, empty when it has none."""
        return await self._parts.names.confirm(peer)

    async def quarantine(self) -> list[QuarantineRow]:
        """What was refused, by code and sender."""
        return await self._parts.journal.read(lambda connection: inbox.load_quarantine(connection, self.mesh))

    def _in_roster(self) -> bool:
        return self._parts.membership.roster.member(self.id) is not None
