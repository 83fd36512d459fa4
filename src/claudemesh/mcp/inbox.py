"""`mesh_inbox`: the messages that wait, long ones by page."""

import asyncio
from contextlib import suppress
from typing import Annotated, Final

import msgspec

from claudemesh.daemon.agents import AgentSession
from claudemesh.mcp.sending import alive
from claudemesh.mcp.tool import LIMIT_CHARACTERS, Call, Tool, ToolArgs

_ADAPTER: Final = "mcp.inbox"
_NOTHING: Final = "No unread messages."


class InboxArgs(ToolArgs, frozen=True, kw_only=True):
    """What to show."""

    id: Annotated[str, msgspec.Meta(description="show this message, or its next part")] = ""
    wait_s: Annotated[int, msgspec.Meta(ge=0, le=3_600, description="block until one comes")] = 0


async def read(call: Call, args: InboxArgs) -> str:
    """Show what waits, or one message from where it was cut."""
    session = await call.connection.session()
    if not session.faces:
        session.speaker()  # says that there is no mesh
    if args.id:
        taken = await session.take_message(args.id.strip(), _ADAPTER, LIMIT_CHARACTERS)
        return await call.connection.show(taken, call.request)
    taken = await session.take("inbox", _ADAPTER, LIMIT_CHARACTERS)
    if not taken.offers and args.wait_s:
        with suppress(TimeoutError):
            async with asyncio.timeout(args.wait_s):
                await alive(call, _something(session), args.wait_s, "waiting for a message")
        taken = await session.take("inbox", _ADAPTER, LIMIT_CHARACTERS)
    return await call.connection.show(taken, call.request) if taken.offers else _NOTHING


async def _something(session: AgentSession) -> None:
    async for news in session.news():
        if news.waiting.total:
            return


INBOX: Final = Tool(
    "mesh_inbox",
    "Read the messages that other agents sent you. Each is shown once; a long one in parts.",
    InboxArgs,
    read,
    tells_unread=False,
)
