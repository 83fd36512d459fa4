"""Passes every request of MCP on to the daemon and its result back, in both eras of the protocol (docs/mcp.md §7).

The SDK's streamable HTTP machinery serves the clients; its `Server` has no handler of ours, for everything is decided
by the server in the daemon. In the 2025 era a session is what the protocol calls one; in the 2026 era, which has none,
it is whatever comes with one client's token to one URL.
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel.server import Server
from mcp.shared.dispatcher import OnNotify, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp_types import INVALID_PARAMS, INVALID_REQUEST
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from claudemesh import __version__
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.errors import UsageError
from claudemesh.mcp.http.exchanges import EXCHANGE, Exchange, Refusal
from claudemesh.mcp.http.link import Link
from claudemesh.mcp.http.settings import (
    MAX_EXCHANGES,
    MAX_SESSIONS,
    RESERVED_EXCHANGES,
    RESERVED_SESSIONS,
    Settings,
    options_of_url,
    session_key,
)
from claudemesh.mcp.http.shares import Shares
from claudemesh.mcp.http.telling import LISTEN, Context, listen, to_nobody, to_session
from claudemesh.mcp.options import Options
from claudemesh.mcp.pump import SERVER_ERROR

HOST: Final = "mcp"
"""It has no hooks: one may say whose session it is, and have a file read, which is for hosts that this user started."""
SWEEP_S: Final = 30.0
LATER: Final = 1.1
"""So much later than the SDK its session a link is ended, so that none is missing that the SDK still serves."""
BUSY_RETRY_S: Final = 60
"""When to ask again for a session if all of one's own are in use; for an answer, it is a second."""
_PASSED_ON: Final = frozenset({"notifications/initialized"})


class Relay:
    """Every session of this process; told of every exchange (`exchanges.Watcher`)."""

    def __init__(self, config: ConfigDir, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._tasks: TaskGroup | None = None
        self._sessions: dict[str, Link] = {}
        """Those of the 2025 era, by the id that the SDK gave them."""
        self._agents: dict[str, Link] = {}
        """Those of the 2026 era, by what the daemon knows them as."""
        self._unopened: set[str] = set()
        """Ids of `_sessions` that the SDK keeps although they were never initialized: nothing is asked by them."""
        self._places = Shares(MAX_SESSIONS, RESERVED_SESSIONS, settings.clients)
        """Of sessions of both eras, from the request that opens one on."""
        self._answering = Shares(MAX_EXCHANGES, RESERVED_EXCHANGES, settings.clients)
        self.server: Server[Any] = Server("claudemesh", version=__version__)
        self.server.middleware[:] = [self._forward]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Pass on for as long as the block lasts; every session ends with it."""
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._sweep)
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_all()
                self._tasks.cancel_scope.cancel()

    # Exchanges

    def begins(self, exchange: Exchange) -> None:
        """It holds the session that it names, if that is its client's; more than a client's share is refused."""
        client = exchange.client
        if not self._answering.take(client):
            said = f"{self._answering.of(client)} requests of this client are being answered: end one, or wait"
            exchange.refusal = Refusal(SERVER_ERROR, said, 1)
            return
        if exchange.opens and not self._take_place(exchange):
            self._answering.give_back(client)
            return
        exchange.has_place = exchange.opens
        link = self._sessions.get(exchange.session_id or "")
        if link is not None and link.client == exchange.client:
            self._hold(exchange, link)

    def answers(self, exchange: Exchange) -> None:
        """The answer to `initialize` names the session that was opened: from now on it is found by that.

        A notification is answered before it is read. Until then nothing counts as read, for it may be a cancellation.
        """
        if exchange.status == 202 and exchange.link is not None:
            exchange.link.notifications += 1
        if exchange.opened is not None and exchange.named is not None:
            self._keep(exchange, exchange.named, exchange.opened)
            exchange.opened = None

    def left(self, exchange: Exchange) -> None:
        """The result has left for the client."""
        if exchange.link is not None and exchange.carried is not None and exchange.asked is not None:
            exchange.link.sent(exchange.asked, exchange.carried)
        exchange.carried = None

    def ends(self, exchange: Exchange) -> None:
        """The session is idle if this was the last one; over when its client said so, or when it was never opened."""
        self._answering.give_back(exchange.client)
        if exchange.has_place:
            self._vacate(exchange)
        link = exchange.link
        if link is None:
            return
        self._release(link)
        if exchange.is_end and exchange.status < 400 and self._sessions.get(exchange.session_id or "") is link:
            link.heard()
            self._end(self._sessions, exchange.session_id or "")
        elif exchange.opened is not None:
            self._group.start_soon(link.close)

    # Messages

    async def _forward(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """The SDK's middleware: in place of a handler the daemon answers."""
        assert ctx.request is not None  # these messages come by HTTP alone
        exchange: Exchange = ctx.request.scope[EXCHANGE]
        if ctx.request_id is None:
            await self._notified(exchange, ctx)
            return None
        if ctx.method == "initialize" and _is_modern(ctx):
            return await call_next(ctx)  # the SDK refuses it as this protocol wants: there is no session to ask
        link = self._link_of(exchange, ctx)
        link.heard()
        request = link.next_id()
        if ctx.method == LISTEN:
            return await listen(link, request, ctx)
        answer = await link.ask(request, ctx.method, ctx.params, _progress(ctx))
        if exchange.is_over:  # the client went away; the SDK drops what comes now
            link.unsent(request)
        exchange.asked, exchange.carried = ctx.request_id, request
        return answer

    async def _notified(self, exchange: Exchange, context: Context) -> None:
        """A cancelled request is cancelled by the SDK; here its answer stops being evidence of anything."""
        if exchange.link is None:
            return
        exchange.link.notifications -= 1
        if context.method == "notifications/cancelled":
            exchange.link.forget((context.params or {}).get("requestId"))
        elif context.method in _PASSED_ON:
            await exchange.link.notify(context.method, context.params)

    def _link_of(self, exchange: Exchange, context: Context) -> Link:
        """The session that a request belongs to. In the 2026 era no header of the client decides that."""
        if _is_modern(context):
            return self._agent(exchange)
        if exchange.link is not None and exchange.session_id not in self._unopened:
            return exchange.link
        if context.method != "initialize":
            raise MCPError(INVALID_REQUEST, "there is no such session: initialize one")
        link = self._link(exchange, f"http:{os.urandom(8).hex()}", self._options(exchange), to_session(context))
        self._hold(exchange, link)
        exchange.opened = link
        return link

    def _agent(self, exchange: Exchange) -> Link:
        options = self._options(exchange)
        key = session_key(exchange.client, options)
        link = self._agents.get(key)
        if link is None:
            if not self._take_place(exchange):
                raise MCPError(SERVER_ERROR, exchange.refusal.message if exchange.refusal else "")
            link = self._agents[key] = self._link(exchange, key, options, to_nobody)
        self._hold(exchange, link)
        return link

    def _link(self, exchange: Exchange, key: str, options: Options, tell: OnNotify) -> Link:
        arguments = {**options._asdict(), "host": HOST, "key": key, "tags": list(options.tags)}
        return Link(self._config, exchange.client, arguments, self._group, tell)

    @property
    def _group(self) -> TaskGroup:
        assert self._tasks is not None
        return self._tasks

    def _options(self, exchange: Exchange) -> Options:
        try:
            return options_of_url(exchange.query, self._settings.options, exchange.client)
        except (UsageError, ValueError) as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error

    def _hold(self, exchange: Exchange, link: Link) -> None:
        """The session is in use until the exchange is over, after which a message of it may still be on its way."""
        if exchange.link is not None:
            self._release(exchange.link)
        exchange.link = link
        link.exchanges += 1

    def _release(self, link: Link) -> None:
        link.exchanges -= 1
        link.idle_since = anyio.current_time()

    # Shares

    def _take_place(self, exchange: Exchange) -> bool:
        """A place for one more session of the client, which is refused if it has its share."""
        client = exchange.client
        if self._places.take(client):
            return True
        said = f"this client has {self._places.of(client)} sessions, and the rest is for others: end one, or wait"
        exchange.refusal = Refusal(SERVER_ERROR, said, self._retry_after_s(client))
        return False

    def _keep(self, exchange: Exchange, session_id: str, link: Link) -> None:
        """The session has an id, and has the place from now on that its first request had."""
        self._sessions[session_id] = link
        self._unopened.discard(session_id)
        exchange.has_place = False

    def _vacate(self, exchange: Exchange) -> None:
        """What opened no session needs no place, unless the SDK has taken it for the opening of one."""
        if exchange.named is None or exchange.status >= 400:
            self._places.give_back(exchange.client)
            return
        self._keep(exchange, exchange.named, self._link(exchange, "", self._settings.options, to_nobody))
        self._unopened.add(exchange.named)

    def _retry_after_s(self, client: str) -> int:
        """When the session of the client ends that is idle for longest."""
        ends_at = [
            link.idle_since + after_s
            for links, after_s in self._lives()
            for link in links.values()
            if link.client == client and not link.exchanges
        ]
        if not ends_at:
            return BUSY_RETRY_S
        return max(1, math.ceil(min(ends_at) - anyio.current_time() + self._sweep_s))

    # Ends

    async def _sweep(self) -> None:
        """End the sessions whose clients are gone: those of the 2025 era after the SDK has ended them."""
        while True:
            await anyio.sleep(self._sweep_s)
            now = anyio.current_time()
            for links, after_s in self._lives():
                for key, link in list(links.items()):
                    if not link.exchanges and link.idle_since < now - after_s:
                        self._end(links, key)

    def _end(self, links: dict[str, Link], key: str) -> None:
        link = links.pop(key)
        self._unopened.discard(key)
        self._places.give_back(link.client)
        self._group.start_soon(link.close)

    def _lives(self) -> tuple[tuple[dict[str, Link], float], ...]:
        """All sessions, and for how many seconds they may be idle."""
        idle_s = self._settings.session_idle_s
        return (self._agents, idle_s), (self._sessions, idle_s * LATER)

    @property
    def _sweep_s(self) -> float:
        return min(SWEEP_S, self._settings.session_idle_s / 10)

    async def _close_all(self) -> None:
        """The process ends."""
        links = [*self._agents.values(), *self._sessions.values()]
        async with anyio.create_task_group() as closing:
            for link in links:
                closing.start_soon(link.close)


def _is_modern(context: Context) -> bool:
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS


def _progress(context: Context) -> ProgressFnT | None:
    """Tells the client that a call is alive, if it wants to know."""
    if progress_token_from_params(context.params) is None:
        return None
    return context.session.report_progress
