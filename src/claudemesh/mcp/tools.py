"""The six tools, and one call of one of them: its text, its errors, and how many messages wait (docs/mcp.md §3)."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import mcp_types
from mcp.server.context import ServerRequestContext

from claudemesh.daemon.logs import log_defect, log_event
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.channels import CHANNEL
from claudemesh.mcp.connection import REQUEST_ID, Connection
from claudemesh.mcp.inbox import INBOX
from claudemesh.mcp.myself import SELF
from claudemesh.mcp.peer_list import PEERS
from claudemesh.mcp.peer_tools import peer_tools
from claudemesh.mcp.sending import ASK, SEND
from claudemesh.mcp.tool import Call, Tool, ToolError, counted, explain
from claudemesh.mcp.wire import Fate

TOOLS: Final = (PEERS, SEND, ASK, INBOX, CHANNEL, SELF)
HOOK: Final = "mesh_hook"
"""What hooks of a host call; no model is told of it (docs/hosts.md §2)."""

Context = ServerRequestContext[Any, Any]


def listed(tool: Tool) -> mcp_types.Tool:
    """A tool as a host lists it."""
    annotations = mcp_types.ToolAnnotations(read_only_hint=True) if tool.reads_only else None
    return mcp_types.Tool(
        name=tool.name, description=tool.description, input_schema=tool.schema, annotations=annotations
    )


async def list_tools(connection: Connection) -> mcp_types.ListToolsResult:
    """The six, then a tool for each peer where that was asked for."""
    try:
        more = await peer_tools(connection)
    except ClaudemeshError:  # no mesh; the six say so when they are called
        more = []
    return mcp_types.ListToolsResult(tools=[listed(one) for one in (*TOOLS, *more)])


async def call_tool(
    connection: Connection, context: Context, params: mcp_types.CallToolRequestParams
) -> mcp_types.CallToolResult:
    """Do what a tool does; whatever goes wrong is told to the model."""
    assert context.request_id is not None
    if params.name == HOOK and connection.has_hooks:
        return _result(await _hook(connection, context.request_id, params.arguments or {}))
    try:
        tool = await _find(connection, params.name)
        call = Call(connection, context.request_id, context.session.report_progress)
        text = await tool.run(call, tool.read(params.arguments))
    except ToolError as error:
        return await _failed(connection, str(error))
    except ClaudemeshError as error:
        log_event("op_failed", op="mcp.tool", code=error.code)
        return await _failed(connection, explain(error))
    except Exception as error:  # noqa: BLE001 - one call must not end the session; its text may quote a message
        log_defect("mcp.tool", error)
        return await _failed(connection, f"{params.name} failed: this is a defect of claudemesh. Tell your user.")
    return _result(text + (await _unread(connection) if tool.tells_unread else ""))


async def _find(connection: Connection, name: str) -> Tool:
    tools = {one.name: one for one in TOOLS}
    if name not in tools:
        tools |= {one.name: one for one in await peer_tools(connection)}
    if name not in tools:
        raise ToolError(f"There is no such tool. There are: {', '.join(tools)}. Nothing was done.")
    return tools[name]


async def _failed(connection: Connection, text: str) -> mcp_types.CallToolResult:
    return _result(text + await _unread(connection), is_error=True)


async def _unread(connection: Connection) -> str:
    waiting = await connection.unread()
    return f"\n\n{counted(waiting, 'unread message')}: mesh_inbox()" if waiting else ""


async def _hook(connection: Connection, request: REQUEST_ID, arguments: dict[str, Any]) -> str:
    """Answer a hook of the host in whose session we are; the text is the hook's, to the letter."""
    from claudemesh.hosts.hooks import HookCall, answer

    call = HookCall.of_tool(arguments)
    try:
        if call.session and not call.agent:
            await connection.adopt(call.host, call.session)
    except ClaudemeshError as error:
        log_event("op_failed", op="mcp.hook", code=error.code)
        return ""
    reply = await answer(connection.daemon, call)
    handed: Callable[[], Awaitable[None]] = reply.handed
    connection.wire.when_known(request, Fate(handed))
    return reply.shown.stdout


def _result(text: str, *, is_error: bool = False) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult(content=[mcp_types.TextContent(type="text", text=text)], is_error=is_error)
