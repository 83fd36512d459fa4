"""`mesh_self`: who this session is, and what the others are told of it."""

from typing import Annotated, Final, Literal

import msgspec

from claudemesh.daemon.agents import REACH_WORDS
from claudemesh.daemon.rendering import label, visible
from claudemesh.mcp.peer_list import label_tag
from claudemesh.mcp.tool import Call, Tool, ToolArgs

_NO_LINK: Final = "no link to the broker: what you send waits here"


class SelfArgs(ToolArgs, frozen=True, kw_only=True):
    """What to change; what is left out stays."""

    about: Annotated[str | None, msgspec.Meta(description="what you work on, up to 120 characters")] = None
    status: Literal["idle", "busy", "away"] | None = None
    tags: Annotated[list[str] | None, msgspec.Meta(description="key=value; others reach you by tag:key=value")] = None


async def tell(call: Call, args: SelfArgs) -> str:
    """Change what is given, and say what holds."""
    session = await call.connection.session()
    if args.about is not None or args.tags is not None:
        await session.describe(about=args.about, tags=args.tags)
    if args.status is not None:
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
