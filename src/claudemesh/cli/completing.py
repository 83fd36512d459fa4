"""Shell completion of names. It asks a daemon that runs, and starts none: a tab key must not have effects."""

import click

from claudemesh.daemon import launch
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import AnsweredError, Object
from claudemesh.daemon.rendering import label
from claudemesh.errors import ClaudemeshError


def complete_mesh(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Aliases of meshes."""
    found = _ask("mesh.list", {}).get("meshes", [])
    return [mesh["alias"] for mesh in found if mesh["alias"].startswith(incomplete)]


def complete_peer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Addresses of peers in the mesh that the line names."""
    found = _ask("peers", {"mesh": ctx.params.get("mesh") or ""}).get("peers", [])
    return [label(peer["address"]) for peer in found if peer["address"].startswith(incomplete)]


def _ask(op: str, args: Object) -> Object:
    daemon = launch.running(ConfigDir.of_environment())
    if daemon is None:
        return {}
    try:
        with daemon:
            return daemon.call(op, args)
    except (AnsweredError, ClaudemeshError):
        return {}
