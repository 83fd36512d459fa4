"""`mesh_send` and `mesh_ask`: a message, how far it came, and the answer."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from claudemesh.daemon.rendering import channel_label, date_text, label, visible
from claudemesh.errors import Malformed, Unreachable
from claudemesh.mcp.connection import Connection
from claudemesh.mcp.peer_list import reached, seen
from claudemesh.mcp.tool import LIMIT_CHARACTERS, Call, Tool, ToolArgs
from claudemesh.protocol import limits

TICK_S: Final = 5.0
"""How often a host that follows a call is told that it is alive."""
ASK_S: Final = 50
"""Less than the minute after which some hosts give a tool up."""
WAIT_S: Final = 45
_ID_SHOWN: Final = 12
_ADAPTER: Final = "mcp.ask"

Wait = Annotated[Literal["", "delivered", "read", "replied"], msgspec.Meta(description="block up to 45 s for this")]
Result = TypeVar("Result")


class SendArgs(ToolArgs, frozen=True, kw_only=True):
    """One message."""

    to: Annotated[str, msgspec.Meta(description="address from mesh_peers, #channel, @group, or tag:key=value")]
    text: str
    reply_to: Annotated[str, msgspec.Meta(description="id of the message you answer")] = ""
    priority: Annotated[Literal["now", "next", "low"], msgspec.Meta(description="now interrupts; low wakes nobody")] = (
        "next"
    )
    intent: Annotated[Literal["", "request", "inform", "ack"], msgspec.Meta(description="ack: needs no attention")] = ""
    wait: Wait = ""
    mesh: str = ""


class AskArgs(ToolArgs, frozen=True, kw_only=True):
    """One question."""

    to: str
    question: str
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = ASK_S
    mesh: str = ""


async def send(call: Call, args: SendArgs) -> str:
    """Send, and say how far it came."""
    connection, to = call.connection, addressee(args.to)
    _check_size(args.text)
    session = await connection.session()
    mesh = await connection.mesh_of(args.mesh, to, args.reply_to)
    wanted: dict[str, Any] = {
        "mesh": mesh,
        "session": session.speaker(mesh)[1].label,
        "to": to,
        "text": args.text,
        "reply_to": args.reply_to,
        "priority": args.priority,
        "wait": args.wait,
        "timeout_ms": WAIT_S * 1_000,
    }
    if args.intent:
        wanted["intent"] = args.intent
    try:
        sent = await alive(call, connection.daemon.perform("send", wanted), WAIT_S, f"waiting until it is {args.wait}")
    except Unreachable as error:
        if error.code != "timeout":
            raise
        return f"Sent, but not {args.wait} within {WAIT_S} s: {visible(error.detail)}. It stays on its way."
    text = await _told(connection, sent)
    for reply in sent["replies"][:1]:
        text += "\n\n" + await _answer(call, reply["id"])
    return text


async def ask(call: Call, args: AskArgs) -> str:
    """Send a question, wait for its answer, and show it."""
    return await put_question(call, addressee(args.to), args.question, args.timeout_s, args.mesh)


async def put_question(call: Call, to: str, question: str, timeout_s: int, mesh: str = "") -> str:
    """Ask one peer, and wait; also what the tools that stand for one peer do."""
    _check_size(question)
    session = await call.connection.session()
    speaker = session.speaker(await call.connection.mesh_of(mesh, to))[1]
    try:
        asking = speaker.ask(to, question, timeout_s=timeout_s)
        reply = await alive(call, asking, timeout_s, f"waiting for {label(to)} to answer")
    except Unreachable as error:
        if error.code != "timeout":
            raise
        late = "Go on with something else: the answer comes as a message (mesh_inbox). Do not ask again."
        return f"No answer within {timeout_s} s. The question stays sent. {late}"
    return await _answer(call, reply.id)


def addressee(to: str) -> str:
    """What a model wrote as an address, without the quotes that the label of a message shows around a channel."""
    return to.strip().strip("'\"`")


async def alive(call: Call, work: Awaitable[Result], total_s: float, at: str) -> Result:
    """Wait for something, and meanwhile tell the host that the call is alive."""
    task, began = asyncio.ensure_future(work), time.monotonic()
    try:
        while not (await asyncio.wait({task}, timeout=TICK_S))[0]:
            await call.progress(round(time.monotonic() - began), total_s, at)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _check_size(text: str) -> None:
    size = len(text.encode("utf-8", "replace"))
    if size > limits.MAX_BODY_BYTES:
        raise Malformed("too_large", f"{size:,} bytes of text")


async def _answer(call: Call, message_id: str) -> str:
    session = await call.connection.session()
    taken = await session.take_message(message_id, _ADAPTER, LIMIT_CHARACTERS)
    return await call.connection.show(taken, call.request)


async def _told(connection: Connection, sent: dict[str, Any]) -> str:
    """How far a message came at each recipient, and what stands in the way."""
    peer = (await connection.session()).speaker(sent["mesh"])[0]
    lines = []
    for one in sent["to"]:
        name = channel_label(one["address"]) if one["address"][:1] in "#@" else label(one["address"])
        view = peer.view(one["key"])
        words = [one["stage"] + (f" ({visible(one['code'])})" if one["code"] else "")]
        if view is not None and one["online"] is not None:
            words.append(reached(view, one["address"].partition("/")[2]))
        elif one["last_seen_at"]:
            words.append(seen(one["last_seen_at"]))
        lines.append(f"{name}: {'; '.join(words)}")
    if sent["link"] != "open":
        lines.append(f"No link to the broker ({visible(sent['link'])}): it waits here and goes out by itself.")
    if any(one["online"] is False for one in sent["to"]):
        lines.append(f"Kept for who is offline until {date_text(sent['expires_at'])}.")
    return f"Message {sent['id'][:_ID_SHOWN]}\n" + "\n".join(lines)


SEND: Final = Tool(
    "mesh_send",
    "Send a message to another agent or a channel and go on working. Answer a message with its reply_to.",
    SendArgs,
    send,
)
ASK: Final = Tool(
    "mesh_ask",
    "Ask one agent and block until it answers. Only when you cannot go on without the answer.",
    AskArgs,
    ask,
)
