"""`mesh_self`: who this session is, and what the others are told of it."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from claudemesh.daemon.agents import REACH_WORDS
from claudemesh.daemon.rendering import label, visible
from claudemesh.mcp.peer_list import label_tag
from claudemesh.mcp.tool import Call, Tool, ToolArgs

_NO_LINK: Final = "no link to the broker: what you send waits here"


class SelfArgs(ToolArgs, frozen=True, kw_only=True):
    """What to change; what is left out stays."""

    about: Annotated[str, msgspec.Meta(description="what you work on, up to 120 characters")] | UnsetType = UNSET
    status: Literal["idle", "busy", "away"] | UnsetType = UNSET
    tags: Annotated[list[str], msgspec.Meta(description="key=value; others reach you by tag:key=value")] | UnsetType = (
        UNSET
    )


async def tell(call: Call, args: SelfArgs) -> str:
    """Change what is given, and say what holds."""
    session = await call.connection.session()
    about = None if args.about is UNSET else args.about
    tags = None if args.tags is UNSET else args.tags
    if about is not None or tags is not None:
        await session.describe(about=about, tags=tags)
    if args.status is not UNSET:
        await session.set_status(args.status)
    if not session.faces:
        session.speaker()  # says that there is no mesh
    lines = []
    for face, _ in session.faces.values():
        view = await face.peer.describe_mesh()
        state = "connected" if view.connected else _NO_LINK
        address = f"{face.peer.address}/{face.session.label}"
        lines.append(f"{label(address)} in mesh {label(face.peer.alias)}: {state}")
    lines.append(f"status {session.status}; messages reach you: {REACH_WORDS[session.reach]}")
    if session.tags:
        lines.append("tags " + " ".join(map(label_tag, session.tags)))
    if session.about:
        lines.append(f"about: {visible(session.about)}")
    return "\n".join(lines)


SELF: Final = Tool(
    "mesh_self",
    "Show your own address and state; or tell the others what you work on.",
    SelfArgs,
    tell,
)
