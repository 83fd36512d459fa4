"""Prompts: what a user may pick in hosts that show them. They hold no peer's text, since they count as the user's."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import mcp_types
from mcp.shared.exceptions import MCPError

from claudemesh.daemon.rendering import visible


class _Prompt(NamedTuple):
    description: str
    text: str
    arguments: tuple[mcp_types.PromptArgument, ...] = ()


def _argument(name: str, description: str) -> mcp_types.PromptArgument:
    return mcp_types.PromptArgument(name=name, description=description, required=True)


_PEER: Final = _argument("peer", "An address, as mesh_peers lists them")
PROMPTS: Final = {
    "inbox": _Prompt(
        "Read what other agents sent",
        "Read the messages of other agents with mesh_inbox. Summarise for me who wants what, answer what you can answer"
        " from this session, and ask me before you do anything that I have not asked for.",
    ),
    "peers": _Prompt(
        "Who is there", "List with mesh_peers who can be reached, and say in a line each what they work on."
    ),
    "send": _Prompt(
        "Send a message",
        'Send {peer} this message with mesh_send, as I wrote it, and tell me how far it came: "{text}"',
        (_PEER, _argument("text", "What to say")),
    ),
    "conversation": _Prompt(
        "Catch up with one agent",
        "Read the resource mesh://conversation/{peer} if you can, else mesh_inbox, and tell me where my conversation"
        " with {peer} stands and what is open.",
        (_PEER,),
    ),
}


def listed() -> list[mcp_types.Prompt]:
    """Every prompt."""
    return [
        mcp_types.Prompt(name=name, description=one.description, arguments=list(one.arguments))
        for name, one in PROMPTS.items()
    ]


def get(name: str, given: Mapping[str, str]) -> mcp_types.GetPromptResult:
    """One prompt, filled in.

    Raises:
        MCPError: There is no such prompt, or an argument is missing.
    """
    prompt = PROMPTS.get(name)
    if prompt is None:
        raise MCPError(mcp_types.INVALID_PARAMS, f"there is no such prompt; there are {', '.join(PROMPTS)}")
    missing = [one.name for one in prompt.arguments if not given.get(one.name)]
    if missing:
        raise MCPError(mcp_types.INVALID_PARAMS, f"the prompt {name} needs {', '.join(missing)}")
    text = prompt.text
    if prompt.arguments:
        text = text.format(**{one.name: visible(given[one.name]) for one in prompt.arguments})
    content = mcp_types.TextContent(type="text", text=text)
    return mcp_types.GetPromptResult(
        description=prompt.description, messages=[mcp_types.PromptMessage(role="user", content=content)]
    )
