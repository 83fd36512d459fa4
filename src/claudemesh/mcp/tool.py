"""What a tool is: arguments that are checked, a text for the model, and errors that say what to do next."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from claudemesh.daemon.ipc import error_object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.connection import REQUEST_ID, Connection

LIMIT_CHARACTERS: Final = 20_000
"""Of messages in one answer: hosts cut a tool's answer off at about 25,000 tokens."""

_NO_MESH: Final = (
    "This machine is in no mesh yet. Ask your user to run `claudemesh join LINK` with a link from a colleague, or"
    " `claudemesh up` to connect the sessions on this machine; then call this tool again."
)
_NEXT: Final = {
    "no_mesh": _NO_MESH,
    "ambiguous_mesh": "Name one of these in `mesh`.",
    "unknown_mesh_alias": "mesh_self lists the meshes.",
    "unknown_address": "mesh_peers lists who is there, mesh_channel the channels. Nothing was sent.",
    "ambiguous_address": "Use one of the longer forms. Nothing was sent.",
    "not_joined": 'Join it first: mesh_channel(action="join"). Nothing was sent.',
    "unknown_message": "mesh_inbox() shows what has come; use an id from there.",
    "too_large": "Send at most 512 KiB at a time, or put it into a file or a commit and send its name.",
    "credential": "Nothing was sent. Take it out and send again; never send credentials.",
    "paused": "Your user paused the agents of this mesh: stop sending, and tell your user what you wanted to say.",
    "budget_spent": "Agents here have used up what they may send for now: tell your user, and do not retry.",
    "disk": "Nothing took effect. Tell your user that the disk is full or cannot be written.",
}
"""What a model can do about a code; for any other there is the hint for a person."""


class ToolError(Exception):
    """A tool did not do what it was asked; the text is for the model."""


class Call(NamedTuple):
    """One call of a tool."""

    connection: Connection
    request: REQUEST_ID
    progress: Callable[[float, float, str], Awaitable[None]]
    """Tells the host that the call is alive: seconds passed, seconds in all, and at what."""


class ToolArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every tool's arguments; the schema that a model sees is made from them."""


class Tool(NamedTuple):
    """One tool: what a model is told of it, and what it does."""

    name: str
    description: str
    args: type[ToolArgs]
    run: Callable[[Call, Any], Awaitable[str]]
    reads_only: bool = False
    tells_unread: bool = True
    """Whether its answer ends with how many messages wait."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments, without what tells a model nothing."""
        (found,) = msgspec.json.schema_components([self.args])[1].values()
        properties = {name: _plain(one) for name, one in found["properties"].items()}
        required = {"required": found["required"]} if found.get("required") else {}
        return {"type": "object", "properties": properties, **required, "additionalProperties": False}

    def read(self, arguments: object) -> Any:
        """The arguments of a call.

        Raises:
            ToolError: They are not of the schema; names what the tool takes.
        """
        try:
            return msgspec.convert(arguments or {}, type=self.args, strict=False)
        except msgspec.ValidationError as error:
            takes = ", ".join(self.args.__struct_fields__) or "no arguments"
            raise ToolError(f"{self.name}: {visible(str(error))}. It takes: {takes}. Nothing was done.") from error


def explain(error: ClaudemeshError) -> str:
    """A failure in words for a model: what happened, and what it can do next."""
    said = visible(error_object(error)["message"])
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} {_NEXT.get(error.code) or error.hint()}"


def counted(number: int, thing: str) -> str:
    """`2 unread messages`."""
    return f"1 {thing}" if number == 1 else f"{number:,} {thing}s"


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """Without defaults, which the descriptions tell where they matter; a choice says that it is text, as some want."""
    kept = {name: value for name, value in field.items() if name not in ("default", "title")}
    return {"type": "string", **kept} if "enum" in kept else kept
