"""`mesh_channel`: list, join, leave and create channels."""

from typing import Annotated, Any, Final, Literal

import msgspec

from claudemesh.daemon.rendering import channel_label, label, visible
from claudemesh.mcp.sending import addressee
from claudemesh.mcp.tool import Call, Tool, ToolArgs, ToolError


class ChannelArgs(ToolArgs, frozen=True, kw_only=True):
    """What to do with which channel."""

    action: Literal["list", "join", "leave", "create"] = "list"
    name: Annotated[str, msgspec.Meta(description="#channel or @group")] = ""
    topic: str = ""
    private: bool = False
    mesh: str = ""


async def act(call: Call, args: ChannelArgs) -> str:
    """Do it, and say what holds now."""
    perform, mesh = call.connection.daemon.perform, await call.connection.mesh_of(args.mesh, "")
    if args.action == "list":
        found = [one for groups in (False, True) for one in (await _list(call, mesh, groups=groups))]
        return "\n".join([f"mesh {label(mesh)}: join a channel to get what is posted", *map(_line, found)])
    name = addressee(args.name)
    if not name:
        raise ToolError(f'mesh_channel: name the channel, as in mesh_channel(action="{args.action}", name="#deploys").')
    name = name if name[0] in "#@" else f"#{name}"
    if args.action == "create":
        kind = "private" if args.private else "group" if name[0] == "@" else "open"
        made = await perform("channel.create", {"mesh": mesh, "name": name, "kind": kind, "topic": args.topic})
        return f"Created {channel_label(made['channel']['name'])}. Post with mesh_send(to=…)."
    answer = await perform(f"channel.{args.action}", {"mesh": mesh, "channel": name})
    shown = channel_label(answer["channel"]["name"])
    if args.action == "join":
        return f"You read {shown} now: what is posted from now on comes to your inbox."
    return f"You do not read {shown} any more."


async def _list(call: Call, mesh: str, *, groups: bool) -> list[dict[str, Any]]:
    answer = await call.connection.daemon.perform("channel.list", {"mesh": mesh, "groups": groups})
    found: list[dict[str, Any]] = answer["channels"]
    return found


def _line(one: dict[str, Any]) -> str:
    joined = "joined" if one["joined"] else "not joined"
    topic = f"; topic: {visible(one['topic'])}" if one["topic"] else ""
    return f"{channel_label(one['name'])}: {one['kind']}, {joined}, {one['members']} peers{topic}"


CHANNEL: Final = Tool(
    "mesh_channel",
    "List, join, leave or create channels. Post with mesh_send.",
    ChannelArgs,
    act,
)
