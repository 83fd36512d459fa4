"""What the broker says in its own name: presence events and notices about envelopes (docs/spec/wire.md §6.7).

They carry no authority: a peer exists if, and only if, the roster says so.
"""

from collections.abc import Callable

from claudemesh.broker.directory import Mesh, encode_statement
from claudemesh.broker.store.base import Notice, Undelivered
from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.codec import encode_message
from claudemesh.protocol.messages import Sys
from claudemesh.types import MeshId, PeerId, UnixMillis


def undelivered_notice(key: SigningKey, clock: Callable[[], UnixMillis], event: str) -> Notice:
    """Makes the statement that tells a sender what became of one envelope: `expired` or `revoked`."""

    def make(letter: Undelivered) -> bytes:
        body = {"v": 1, "mesh": letter.mesh, "at": clock(), "ev": event, "who": letter.to, "id": letter.id}
        return encode_statement(statements.sign_statement(body, "sys", key))

    return make


def presence_event(mesh: MeshId, event: str, peer: PeerId, key: SigningKey, now: UnixMillis) -> Statement:
    """The statement that a peer has joined or left."""
    return statements.sign_statement({"v": 1, "mesh": mesh, "at": now, "ev": event, "who": peer}, "sys", key)


def show(mesh: Mesh, peer: PeerId, statement: Statement, max_links: int, max_buffered: int) -> None:
    """Show the other peers of a mesh what is said about one of them.

    A mesh with more links than `max_links` is not told: everybody who connects would cost a frame for
    everybody who is there. Its peers ask with `list_peers`.
    """
    if not mesh.links or len(mesh.links) > max_links:
        return
    frame = encode_message(Sys(st=statement))
    for link in list(mesh.links.values()):
        if link.peer != peer and link.outlet.buffered() <= max_buffered:
            link.outlet.write(frame)
