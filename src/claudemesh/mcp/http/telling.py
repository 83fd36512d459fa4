"""What the daemon tells by itself, on its way to a client: by the stream of a session, or of a subscription."""

from collections.abc import Mapping
from typing import Any, Final

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.dispatcher import DispatchContext, OnNotify
from mcp.shared.exceptions import MCPError
from mcp_types import server_notification_adapter

from claudemesh.mcp.http.link import SUBSCRIPTION, Link
from claudemesh.mcp.pump import LOST, SERVER_ERROR

LISTEN: Final = "subscriptions/listen"
_OF_SESSIONS: Final = frozenset(
    {
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/tools/list_changed",
    }
)

Context = ServerRequestContext[Any, Any]


def to_session(context: Context) -> OnNotify:
    """What the daemon tells a session of the 2025 protocol goes to the stream that its client holds open."""
    session = context.session

    async def tell(_: DispatchContext[Any], method: str, params: Mapping[str, Any] | None) -> None:
        if method in _OF_SESSIONS:
            await session.send_notification(_notification(method, params))

    return tell


async def to_nobody(_: DispatchContext[Any], __: str, ___: Mapping[str, Any] | None) -> None:
    """In the 2026 era a client hears of what it listens to, and of nothing else."""


async def listen(link: Link, request: int, context: Context) -> dict[str, Any]:
    """One subscription: what the daemon tells of it goes out on this request's own stream."""
    told = link.subscribe(request)
    outcome: dict[str, Any] | MCPError = MCPError(SERVER_ERROR, LOST)

    async def ask() -> None:
        nonlocal outcome
        try:
            outcome = await link.ask(request, context.method, context.params)
        except MCPError as error:
            outcome = error
        link.unsubscribe(request)

    try:
        async with told, anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            async for method, params in told:
                await context.session.send_notification(
                    _notification(method, _renamed(params, context)), related_request_id=context.request_id
                )
            tasks.cancel_scope.cancel()
    finally:
        link.unsubscribe(request)
    if isinstance(outcome, MCPError):
        raise outcome
    return _renamed(outcome, context)


def _renamed(holder: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Under the client's own id of the subscription, in place of ours."""
    meta = holder.get("_meta")
    if not isinstance(meta, Mapping) or SUBSCRIPTION not in meta:
        return dict(holder)
    return {**holder, "_meta": {**meta, SUBSCRIPTION: context.request_id}}


def _notification(method: str, params: Mapping[str, Any] | None) -> Any:
    message = {"method": method, **({"params": dict(params)} if params is not None else {})}
    return server_notification_adapter.validate_python(message, by_name=False)
