"""`claudemesh statusline`: one line for a host's status bar, in well under 100 ms, from whatever the daemon knows."""

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon import launch
from claudemesh.daemon.ipc import AnsweredError, Client, Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import LocalError


@click.command(epilog="Example: claudemesh statusline   # ◇ acme · 3/5 online · 2 unread")
@verb
def statusline(verb: Verb) -> None:
    """Print one line for a host's status bar.

    For each mesh, the peers online and the unread messages. Starts nothing, and prints `◇ off` when
    the daemon does not run. What the host writes to standard input is not read.
    """
    client = launch.running(verb.config)
    if client is None:
        verb.answer({"running": False, "meshes": []}, lambda _: ["◇ off"])
        return
    try:
        with client:
            meshes = [_mesh(client.call("peers", {"mesh": one["alias"]}), one) for one in _listed(client)]
    except (AnsweredError, LocalError):
        verb.answer({"running": False, "meshes": []}, lambda _: ["◇ …"])
        return
    verb.answer({"running": True, "meshes": meshes}, lambda answer: [_line(answer)])


def _listed(client: Client) -> list[Object]:
    return list(client.call("mesh.list", {})["meshes"])


def _mesh(peers: Object, mesh: Object) -> Object:
    rows = peers["peers"]
    online = sum(1 for one in rows if one.get("online"))
    return {"mesh": mesh["alias"], "online": online, "peers": len(rows), "unread": mesh.get("unread", 0)}


def _line(answer: Object) -> str:
    parts = [
        f"{visible(one['mesh'])} · {one['online']}/{one['peers']} online"
        + (f" · {one['unread']} unread" if one["unread"] else "")
        for one in answer["meshes"]
    ]
    return "◇ " + (" ◇ ".join(parts) or "no mesh")
