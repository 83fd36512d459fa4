"""What one connection of a host is: its agent's session, and the mesh in which it speaks."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from claudemesh.daemon.agents import AgentSession, Taken
from claudemesh.daemon.attaching import Daemon
from claudemesh.errors import AddressError, ClaudemeshError
from claudemesh.hosts import claude_code
from claudemesh.mcp.wire import Fate, Wire

REQUEST_ID = int | str


class Connection:
    """One host's session, for as long as its process lasts.

    Args:
        args: As `options.attach_arguments` made them; of other shapes nothing is taken.
    """

    def __init__(self, daemon: Daemon, args: Mapping[str, Any], wire: Wire) -> None:
        self.daemon = daemon
        self.wire = wire
        self.peers_as_tools = args.get("peers_as_tools") is True
        self._host = _text(args, "host") or "mcp"
        self.has_hooks = self._host == claude_code.NAME
        """Whether its host's hooks speak here: they say whose session it is, and which transcript to read. In a host
        that has no such hooks it could only be its model, which a peer has talked into it."""
        self._key = _text(args, "key") or f"{id(wire):x}"
        self._own_key = self._key
        self._cwd = _text(args, "cwd")
        process = args.get("process")
        self._process = process if isinstance(process, int) else 0
        self._session: AgentSession | None = None
        self._label = _text(args, "label")
        self._mesh = _text(args, "mesh")
        tags = args.get("tags")
        self._tags = [one for one in tags if isinstance(one, str)] if isinstance(tags, list) else []

    async def session(self) -> AgentSession:
        """The agent's session; opened again when somebody closed it.

        Raises:
            AddressError, UsageError: The options name no mesh, or no label.
        """
        known = self._session
        if known is not None and known.is_open:  # a hook may have learnt the host's own id of it since
            self._host, self._key = known.host, known.key
        if self._process:
            await self._follow_process()
        self._session = await self.daemon.agents.open(
            self._host,
            self._key,
            cwd=self._cwd,
            label=self._label,
            mesh=self._mesh,
            tags=self._tags,
            process=self._process,
        )
        return self._session

    async def _follow_process(self) -> None:
        """Of the sessions that the host's process has here, speak for the one at work: its plugin says which."""
        agents = self.daemon.agents
        own = agents.find(self._host, self._own_key)
        found = agents.find(self._host, cwd=self._cwd, process=self._process)
        if own is not None and found is not None and own is not found:
            await agents.adopt(own, found.host, found.key)
        self._key = found.key if found is not None else self._own_key

    async def adopt(self, host: str, key: str) -> None:
        """A hook told the host's own id of the session: what we know of it goes by that from now on."""
        if key and (host, key) != (self._host, self._key):
            self._session = await self.daemon.agents.adopt(await self.session(), host, key)
            self._host, self._key = host, key

    async def close(self) -> None:
        """The host's process has ended. A session that hooks keep, too, is theirs to close."""
        session = self._session
        if session is not None and session.is_open and session.reach == "asked":
            await self.daemon.agents.close(session)

    async def mesh_of(self, mesh: str, to: str, reply_to: str = "") -> str:
        """The mesh of an addressee: the one that is named; else the only one where the message or the name is known.

        Raises:
            AddressError: `no_mesh`; or `ambiguous_mesh`, when one has to be named.
        """
        session = await self.session()
        meshes = [face.peer for face, _ in session.faces.values()]
        if mesh or len(meshes) < 2:
            return session.speaker(mesh)[0].alias
        known = []
        for peer in meshes:
            with suppress(AddressError):
                if reply_to:
                    await peer.find_message(reply_to)
                else:
                    peer.resolve(to)
                known.append(peer.alias)
        return known[0] if len(known) == 1 else session.speaker()[0].alias

    async def show(self, taken: Taken, request: REQUEST_ID) -> str:
        """The text of messages that the answer to a request carries: they are read once the host has that answer."""
        session = await self.session()
        if taken.ids:
            fate = Fate(
                written=lambda: session.confirm(taken.ids, "tool_result"),
                sent=lambda: session.handed(taken.ids),
                unsent=lambda: session.withdraw(taken.ids),
            )
            self.wire.when_known(request, fate)
        return taken.text

    async def unread(self) -> int:
        """How many messages wait for the session; none where there is no session."""
        try:
            return (await (await self.session()).waiting()).total
        except ClaudemeshError:
            return 0


def _text(args: Mapping[str, Any], name: str) -> str:
    value = args.get(name)
    return value if isinstance(value, str) else ""
