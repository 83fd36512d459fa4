"""The meshes of one configuration directory: a peer for each, over one keystore and one journal."""

import asyncio
import contextlib
import getpass
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final, Self

from claudemesh import transport
from claudemesh.crypto.invite import parse_link
from claudemesh.daemon.alarms import alarms_logged
from claudemesh.daemon.logs import log_defect, log_event
from claudemesh.errors import AddressError, ClaudemeshError, Unreachable, UsageError
from claudemesh.peer import Peer, Recovered, Runtime, contents, founding, joining, recovering
from claudemesh.peer.config import Config, MeshKeys
from claudemesh.peer.correspondence import Correspondent
from claudemesh.peer.founding import Founded
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.peer_session import PeerSession
from claudemesh.peer.surroundings import Surroundings
from claudemesh.types import MeshId

FIRST_LINK_TIMEOUT_S: Final = 10.0
"""How long `create` and `join` wait for the first link of their peer; without it they have succeeded all the same."""
REOPEN_AFTER_S: Final = 5.0

Say = Callable[[str], None]


class Home:
    """Opened, no other process has the directory. Peers work from `start` to the end of the context."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runtime = Runtime()
        self._stack = contextlib.AsyncExitStack()
        self._opened: dict[MeshId, tuple[Peer, contextlib.AsyncExitStack]] = {}
        self._sessions: dict[tuple[MeshId, str], PeerSession] = {}
        self._keepers: dict[MeshId, asyncio.Task[None]] = {}
        self.opened: Callable[[Peer], None] = lambda _peer: None
        """Told of each peer once it is open."""

    async def __aenter__(self) -> Self:
        """Take the lock and open keystore and journal.

        Raises:
            LocalError: `config_locked`, `config_mode`, `config_damaged`, `newer_schema` and others; nothing runs.
        """
        async with contextlib.AsyncExitStack() as stack:
            self.keystore = stack.enter_context(Keystore.open(self._directory))
            self.journal = await stack.enter_async_context(Journal(self.keystore.journal_path))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close_peers()
        await self._stack.aclose()

    async def start(self) -> None:
        """Open the peer of every mesh."""
        for keys in list(self.keystore.meshes):
            if not keys.joining:
                await self._open(keys.id)

    @property
    def peers(self) -> list[Peer]:
        """Every open peer."""
        return [peer for peer, _ in self._opened.values()]

    def peer(self, mesh: str) -> Peer:
        """The peer of an alias or of the beginning of a mesh id; with "" the only one.

        Raises:
            AddressError: `no_mesh`, `ambiguous_mesh`, `unknown_mesh_alias`.
        """
        keys = self.keystore.find_mesh(mesh or None)
        found = self._opened.get(keys.id)
        if found is None:
            raise AddressError("unknown_mesh_alias", keys.alias)
        return found[0]

    def selected(self, mesh: str) -> list[Peer]:
        """The peer of one mesh, or with "" every one."""
        return [self.peer(mesh)] if mesh else self.peers

    # Coming and going

    async def create(
        self, alias: str, broker_url: str, name: str, device: str, say: Say, *, with_recovery: bool = True
    ) -> tuple[Peer, Founded]:
        """Found a mesh; raises as `founding.create_mesh`."""
        name, device = self._labels(name, device)
        alias = contents.require_name(alias, "an alias")
        if any(keys.alias == alias and not founding.was_cut_off(keys) for keys in self.keystore.meshes):
            raise UsageError("usage", f"there is a mesh {alias} already")
        founded = await founding.create_mesh(
            self._around(),
            broker_url,
            name=name,
            device=device,
            alias=alias,
            with_recovery=with_recovery,
            progress=say,
        )
        return await self._open_linked(founded.mesh), founded

    async def join(self, link: str, alias: str, name: str, device: str, say: Say) -> Peer:
        """Join by a link; raises as `joining.join`."""
        name, device = self._labels(name or contents.as_label(parse_link(link).joiner_label), device)
        wanted = contents.require_name(alias, "an alias") if alias else None
        joined = await joining.join(self._around(), link, name=name, device=device, alias=wanted, progress=say)
        return await self._open_linked(joined.mesh)

    async def recover(
        self, words: str, mesh: str, broker_url: str, mesh_id: str, name: str, device: str, say: Say
    ) -> tuple[Peer, Recovered, bool]:
        """Become the owner of a mesh by its recovery words; raises as `recovering.recover`.

        Returns:
            The new peer, what went with the old owners, and whether the channels have new secrets already.
        """
        if not mesh and not mesh_id and self._opened:
            mesh = self.keystore.find_mesh(None).mesh
        known = [keys for keys in self.keystore.meshes if not keys.joining and _is_meant(keys, mesh, mesh_id)]
        if not known:
            name, device = self._labels(name, device)
        for keys in known:
            if keys.id in self._keepers:
                await self._close(keys.id)
        try:
            recovered = await recovering.recover(
                self._around(),
                words,
                mesh=mesh or None,
                broker_url=broker_url,
                mesh_id=mesh_id,
                name=name,
                device=device,
                progress=say,
            )
        except BaseException:
            for keys in known:
                await self._open(keys.id)
            raise
        peer = await self._open_linked(recovered.mesh)
        rotated = False
        with contextlib.suppress(ClaudemeshError):  # it is the owner in any case; whoever writes next rotates
            if recovered.former is not None:
                await peer.revoke(recovered.former, "left")
            await peer.rotate_scopes()
            rotated = True
        return peer, recovered, rotated

    async def reopen(self, peer: Peer) -> Peer:
        """Close a peer and open it anew from the journal, as after a decision for another head."""
        await self._close(peer.mesh)
        return await self._open_linked(peer.mesh)

    async def settle(self, peer: Peer) -> None:
        """Give a link a moment to open; without it nothing has failed."""
        with contextlib.suppress(Unreachable):
            await peer.wait_connected(FIRST_LINK_TIMEOUT_S)

    async def forget(self, peer: Peer) -> None:
        """Close a peer and delete its keys."""
        keys = self.keystore.mesh(peer.mesh)
        await self._close(peer.mesh)
        self.keystore.remove_mesh(keys)

    async def replace_config(self, config: Config) -> None:
        """Use other keys from now on; raises `LocalError` (`disk`), and then the old ones stay in use."""
        await self._close_peers()
        try:
            self.keystore.save(config)
        finally:
            await self.start()

    # Sessions that a watching terminal holds open

    @contextlib.asynccontextmanager
    async def session(self, peer: Peer, label: str, tags: Iterable[str] = ()) -> AsyncIterator[PeerSession]:
        """Open a session for as long as the block lasts.

        Raises:
            UsageError: One with that label is open, or a tag cannot be one.
        """
        label = contents.require_name(label, "a session's label")
        key = (peer.mesh, label)
        if key in self._sessions:
            raise UsageError("usage", f"a session {label} is open already")
        self._sessions[key] = session = await peer.open_session(label, tags=tags)
        try:
            yield session
        finally:
            del self._sessions[key]
            await session.close()

    def session_labels(self) -> list[tuple[MeshId, str]]:
        """The labels of the open sessions, each with its mesh."""
        return list(self._sessions)

    def correspondent(self, peer: Peer, label: str) -> Correspondent:
        """Who speaks: an open session, or with "" the peer as such."""
        if not label:
            return peer
        try:
            return self._sessions[peer.mesh, label]
        except KeyError:
            raise AddressError("unknown_address", f"no session {label} is open here; see claudemesh watch") from None

    # Private

    def _around(self) -> Surroundings:
        return Surroundings(self.keystore, self.journal, transport.connect, self._runtime)

    def _labels(self, name: str, device: str) -> tuple[str, str]:
        config = self.keystore.config
        return name or config.name or _login_name(), device or config.device or _host_name()

    async def _open(self, mesh: MeshId) -> Peer:
        async with contextlib.AsyncExitStack() as stack:
            peer = await stack.enter_async_context(Peer(self.keystore, self.journal, mesh, runtime=self._runtime))
            await stack.enter_async_context(alarms_logged(peer))
            self._opened[mesh] = peer, stack.pop_all()
        self._keepers[mesh] = asyncio.create_task(self._keep(peer))
        log_event("mesh_opened", mesh=mesh)
        self.opened(peer)
        return peer

    async def _open_linked(self, mesh: MeshId) -> Peer:
        peer = await self._open(mesh)
        await self.settle(peer)
        return peer

    async def _keep(self, peer: Peer) -> None:
        """Open a peer anew when a defect has ended it: what it had in hand is in the journal."""
        try:
            await peer.wait_ended()
        except Exception as error:  # noqa: BLE001 - isolates one mesh; the others go on
            log_defect("peer", error)
        await asyncio.sleep(REOPEN_AFTER_S)
        _, stack = self._opened.pop(peer.mesh)
        with contextlib.suppress(Exception):  # what ended it is raised once more, and is in the log already
            await stack.aclose()
        while True:
            try:
                await self._open(peer.mesh)
            except ClaudemeshError as error:
                log_event("mesh_not_opened", mesh=peer.mesh, code=error.code)
                await asyncio.sleep(REOPEN_AFTER_S)
            else:
                return

    async def _close(self, mesh: MeshId) -> None:
        keeper = self._keepers.pop(mesh)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        if mesh in self._opened:
            _, stack = self._opened.pop(mesh)
            await stack.aclose()
        log_event("mesh_closed", mesh=mesh)

    async def _close_peers(self) -> None:
        for mesh in list(self._keepers):
            await self._close(mesh)


def _is_meant(keys: MeshKeys, mesh: str, mesh_id: str) -> bool:
    """Whether a recovery of the alias or id `mesh`, or of the id `mesh_id`, is about these keys."""
    if mesh_id:
        return keys.mesh.startswith(mesh_id.lower())
    return bool(mesh) and (keys.alias == mesh or (len(mesh) >= 8 and keys.mesh.startswith(mesh.lower())))


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry, as in a container
        name = ""
    return contents.as_label(name) or "user"


def _host_name() -> str:
    return contents.as_label(socket.gethostname().split(".")[0]) or "device"
