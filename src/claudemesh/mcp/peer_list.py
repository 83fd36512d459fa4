"""`mesh_peers`: who is in a mesh, and how a message reaches them."""

import time
from typing import Final

from claudemesh.daemon.agents import REACH_WORDS
from claudemesh.daemon.rendering import label, visible
from claudemesh.daemon.trust import trust_of
from claudemesh.mcp.connection import Connection
from claudemesh.mcp.tool import Call, Tool, ToolArgs
from claudemesh.peer.views import PeerView, SessionView

_TRUST: Final = {"pinned": "another user", "unknown": "unknown: no name stands for its key"}
_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


class PeersArgs(ToolArgs, frozen=True, kw_only=True):
    """Which mesh."""

    mesh: str = ""


async def list_peers(call: Call, args: PeersArgs) -> str:
    """One line per peer and one per session of it."""
    return await describe_peers(call.connection, args.mesh)


async def describe_peers(connection: Connection, mesh: str = "") -> str:
    """Every peer of one mesh, or of all.

    Raises:
        AddressError: `no_mesh`, `unknown_mesh_alias`.
    """
    session = await connection.session()
    every = [face.peer for face, _ in session.faces.values()]
    peers = [session.speaker(mesh)[0]] if mesh or not every else every
    parts = []
    for peer in peers:
        await peer.refresh_presence()
        views = sorted(await peer.peers(), key=lambda one: (not one.me, not one.own, one.address))
        own = session.speaker(peer.alias)[1].label
        lines = [f"mesh {label(peer.alias)}, you are {label(f'{peer.address}/{own}')}" + _offline(peer.connected)]
        lines += [line for view in views for line in _peer_lines(view, own)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def reached(view: PeerView, session_label: str = "") -> str:
    """How a peer, or one session of it, can be reached now."""
    for one in view.sessions:
        if one.online and one.label == session_label and session_label:
            return _session_words(one)
    return "online" if view.online else f"offline, {seen(view.last_seen)}"


def seen(at_ms: int) -> str:
    """When somebody was seen last, in words."""
    passed = int(time.time() - at_ms / 1000)
    for seconds, unit in _STEPS:
        if at_ms and passed >= seconds:
            return f"last seen {passed // seconds} {unit} ago"
    return "last seen just now" if at_ms else "never seen"


def _offline(connected: bool) -> str:
    return "" if connected else " (no link to the broker: who is online is not known, and messages wait here)"


def _peer_lines(view: PeerView, own_label: str) -> list[str]:
    sessions = [one for one in view.sessions if one.online and one.label]
    lines = [f"{label(view.address)}: {reached(view)}; {_TRUST.get(trust_of(view), trust_of(view))}"]
    for one in sessions:
        note = " (you)" if view.me and one.label == own_label else ""
        lines.append(f"  {label(view.address)}/{label(one.label)}: {_session_words(one)}{note}")
    return lines


def _session_words(one: SessionView) -> str:
    reach = f"sees messages: {REACH_WORDS[one.reach]}" if one.reach in REACH_WORDS else ""
    said = "; ".join(word for word in (one.status, reach, " ".join(map(label_tag, one.tags))) if word)
    return f"{said}; says: {visible(one.about)}" if one.about else said


def label_tag(tag: str) -> str:
    """A tag as one word."""
    return "=".join(map(label, tag.split("=", 1)))


PEERS: Final = Tool(
    "mesh_peers",
    "List the other agents and people you can message: addresses, who is online, what they work on.",
    PeersArgs,
    list_peers,
    reads_only=True,
)
