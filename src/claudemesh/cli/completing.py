"""Shell completion of names. It asks a daemon that runs, and starts none: a tab key must not have effects."""

import click

from claudemesh.daemon import launch
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import AnsweredError, Object
from claudemesh.daemon.rendering import channel_label, label
from claudemesh.errors import ClaudemeshError


def complete_mesh(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Aliases of meshes."""
    found = _ask("mesh.list", {}).get("meshes", [])
    return [mesh["alias"] for mesh in found if mesh["alias"].startswith(incomplete)]


def complete_peer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Addresses of peers in the mesh that the line names."""
    found = _ask("peers", {"mesh": ctx.params.get("mesh") or ""}).get("peers", [])
    return [label(peer["address"]) for peer in found if peer["address"].startswith(incomplete)]


def complete_channel(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of channels, without the sign that a shell would take for a comment."""
    return _channels(ctx, incomplete, groups=False)


def complete_group(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of groups, without their sign."""
    return _channels(ctx, incomplete, groups=True)


def _channels(ctx: click.Context, incomplete: str, *, groups: bool) -> list[str]:
    args = {"mesh": ctx.params.get("mesh") or "", "groups": groups}
    names = [channel_label(one["name"])[1:] for one in _ask("channel.list", args).get("channels", [])]
    return [name for name in names if name.startswith(incomplete)]


def _ask(op: str, args: Object) -> Object:
    daemon = launch.running(ConfigDir.of_environment())
    if daemon is None:
        return {}
    try:
        with daemon:
            return daemon.call(op, args)
    except (AnsweredError, ClaudemeshError):
        return {}
