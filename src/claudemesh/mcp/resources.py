"""Resources: the inbox, the peers, and the conversation with one peer, for hosts that show them (docs/mcp.md §4).

Looking at one states nothing to anybody: no message counts as read by it, nor as shown.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

import mcp_types
from mcp.shared.exceptions import MCPError

from claudemesh.daemon.agents import REPLY_TOOL
from claudemesh.daemon.agents.composing import view_of
from claudemesh.daemon.rendering import label, render
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.connection import Connection
from claudemesh.mcp.peer_list import describe_peers
from claudemesh.mcp.tool import explain
from claudemesh.peer import Peer, Received

INBOX_URI: Final = "mesh://inbox"
PEERS_URI: Final = "mesh://peers"
_CONVERSATION: Final = "mesh://conversation/"
_PLAIN: Final = "text/plain"
_LISTED_PEERS: Final = 50
_SHOWN: Final = 20
_SEARCHED: Final = 1_000
_BODY_CHARACTERS: Final = 4_000

CONVERSATION: Final = mcp_types.ResourceTemplate(
    name="conversation",
    title="Conversation with one agent",
    uri_template=_CONVERSATION + "{peer}",
    description="The last messages that one peer sent here",
    mime_type=_PLAIN,
)


def conversation_uri(address: str) -> str:
    """Where the conversation with a peer is."""
    return _CONVERSATION + quote(address, safe="")


async def list_resources(connection: Connection) -> mcp_types.ListResourcesResult:
    """The inbox, the peers, and a conversation for each peer."""
    found = [
        _resource(INBOX_URI, "inbox", "Unread messages of other agents"),
        _resource(PEERS_URI, "peers", "Who is in the mesh, and how they can be reached"),
    ]
    for peer in await _meshes(connection):
        others = [view.address for view in await peer.peers() if not view.me]
        found += [
            _resource(conversation_uri(one), f"conversation with {label(one)}", "The last messages that it sent here")
            for one in sorted(others)[:_LISTED_PEERS]
        ]
    return mcp_types.ListResourcesResult(resources=list({one.uri: one for one in found}.values()))


async def read_resource(connection: Connection, uri: str) -> mcp_types.ReadResourceResult:
    """The text of one resource.

    Raises:
        MCPError: There is no such resource.
    """
    try:
        text = await _text(connection, uri)
    except ClaudemeshError as error:
        if error.code in ("unknown_address", "ambiguous_address"):
            raise _not_found(uri, explain(error)) from error
        text = explain(error)
    content = mcp_types.TextResourceContents(uri=uri, mime_type=_PLAIN, text=text)
    return mcp_types.ReadResourceResult(contents=[content])


async def _text(connection: Connection, uri: str) -> str:
    if uri == PEERS_URI:
        return await describe_peers(connection)
    if uri == INBOX_URI:
        return await _inbox(connection)
    if uri.startswith(_CONVERSATION):
        return await _conversation(connection, unquote(uri.removeprefix(_CONVERSATION)))
    raise _not_found(uri, f"there is no such resource; see {INBOX_URI} and {PEERS_URI}")


async def _inbox(connection: Connection) -> str:
    session = await connection.session()
    if not session.faces:
        session.speaker()  # says that there is no mesh
    blocks: list[str] = []
    for face, _ in session.faces.values():
        waiting = await face.peer.inbox(unseen=True, limit=_SHOWN)
        blocks += _blocks(face.peer, (one for one in waiting if one.session in (None, face.session.id)))
    return "\n\n".join(blocks) or "No unread messages."


async def _conversation(connection: Connection, address: str) -> str:
    session = await connection.session()
    peer = session.speaker(await connection.mesh_of("", address))[0]
    senders = peer.resolve(address).peers
    found = [one for one in await peer.inbox(unseen=False, limit=_SEARCHED) if one.sender_id in senders]
    return "\n\n".join(_blocks(peer, found[-_SHOWN:])) or f"Nothing came from {label(address)}."


def _blocks(peer: Peer, messages: Iterable[Received]) -> list[str]:
    """Messages as they are drawn everywhere; of a mesh that is paused, none."""
    return [
        render(view_of(peer, one), REPLY_TOOL, _BODY_CHARACTERS)
        for one in messages
        if peer.withheld(one.priority) != "paused"
    ]


async def _meshes(connection: Connection) -> list[Peer]:
    try:
        return [face.peer for face, _ in (await connection.session()).faces.values()]
    except ClaudemeshError:
        return []


def _not_found(uri: str, text: str) -> MCPError:
    return MCPError(mcp_types.INVALID_PARAMS, text, {"uri": uri})


def _resource(uri: str, name: str, description: str) -> mcp_types.Resource:
    return mcp_types.Resource(uri=uri, name=name, description=description, mime_type=_PLAIN)
