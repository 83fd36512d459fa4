"""`--peers-as-tools`: each peer that was granted `ask` here is a tool of its own (docs/mcp.md §5).

A name is for the model; what is called is the peer's key, so that a name which changes hands reaches nobody else.
"""

import re
from typing import Annotated, Final

import msgspec

from claudemesh.daemon.rendering import label
from claudemesh.mcp.connection import Connection
from claudemesh.mcp.sending import ASK_S, put_question
from claudemesh.mcp.tool import Call, Tool, ToolArgs
from claudemesh.peer.administrator import GrantView

_UNFIT: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME_CHARACTERS: Final = 48
_KEY_DIGITS: Final = 8


class QuestionArgs(ToolArgs, frozen=True, kw_only=True):
    """One question to the peer that the tool stands for."""

    question: str
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = ASK_S


async def peer_tools(connection: Connection) -> list[Tool]:
    """A tool for each peer that a person here granted `ask`; none unless the host was set up so."""
    if not connection.peers_as_tools:
        return []
    session, found = await connection.session(), list[tuple[str, str, str]]()
    for face, _ in session.faces.values():
        for view in face.peer.grants():
            if _is_granted(view):
                found.append((view.address, view.peer, face.peer.alias))
    names = [_name(address) for address, _, _ in found]
    return [
        _tool(name if names.count(name) == 1 else f"{name}_{key[:_KEY_DIGITS]}", address, key, mesh)
        for name, (address, key, mesh) in zip(names, found, strict=True)
    ]


def _is_granted(view: GrantView) -> bool:
    """Whether a person said so: what everybody may by default would make a tool of every peer of a large mesh."""
    said = any(rule.permission == "ask" and rule.is_allowed for rule in view.rules)
    return said and "ask" in view.grants.permissions and not view.grants.is_blocked


def _name(address: str) -> str:
    return f"ask_{_UNFIT.sub('_', address)[:_MAX_NAME_CHARACTERS]}"


def _tool(name: str, address: str, key: str, mesh: str) -> Tool:
    async def ask(call: Call, args: QuestionArgs) -> str:
        return await put_question(call, key, args.question, args.timeout_s, mesh)

    return Tool(name, f"Ask {label(address)} in mesh {label(mesh)}, and wait for the answer.", QuestionArgs, ask)
