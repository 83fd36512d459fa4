"""The contract of a bus: hints between the nodes of one broker (docs/spec/cluster.md §3).

A hint says where to look, never what is true: whoever gets one asks the store, or checks a signature. So one
that is lost, repeated, late or forged costs time and nothing else.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from claudemesh.broker.store.base import LinkId
from claudemesh.crypto.statements import Statement
from claudemesh.types import MeshId, PeerId

MAX_HINT_BYTES: Final = 256 << 10


class Hint(msgspec.Struct, frozen=True, gc=False, tag_field="t"):
    """Something that other nodes should look at."""


class Waiting(Hint, frozen=True, gc=False, tag="waiting"):
    """Rows that no link holds wait in these mailboxes."""

    mesh: MeshId
    peers: tuple[PeerId, ...]


class Scheduled(Hint, frozen=True, gc=False, tag="scheduled"):
    """A row was stored whose time will come."""


class Moved(Hint, frozen=True, gc=False, tag="moved"):
    """A mesh is at another version: its roster has grown, or its subscriptions have changed."""

    mesh: MeshId


class Said(Hint, frozen=True, gc=False, tag="said"):
    """The broker has said something about a peer of a mesh, such as `peer_joined`: show it to open links."""

    mesh: MeshId
    peer: PeerId
    st: Statement


class Superseded(Hint, frozen=True, gc=False, tag="superseded"):
    """The session of a link has opened another one, on another node."""

    mesh: MeshId
    link: LinkId


class Gone(Hint, frozen=True, gc=False, tag="gone"):
    """A node has ended: what its links held waits in the mailboxes."""


AnyHint = Waiting | Scheduled | Moved | Said | Superseded | Gone
Receive = Callable[[AnyHint], None]
"""Takes a hint of another node, on the event loop; it neither waits nor raises."""

encode_hint: Final = msgspec.json.Encoder().encode
decode_hint: Final[Callable[[bytes], AnyHint]] = msgspec.json.Decoder(AnyHint).decode


class Bus(Protocol):
    """Carries hints to every other node of the same broker, in the order of one publisher, at most once."""

    async def open(self, receive: Receive) -> None:
        """Start to carry hints. Returns at once, connected or not, and connects when it can, again and again."""

    def is_connected(self) -> bool:
        """Whether hints come and go now, as far as is known."""

    def publish(self, hint: AnyHint) -> None:
        """Tell the other nodes. Never waits and never fails: what cannot be sent now is dropped."""

    async def close(self) -> None:
        """Send what was published, and stop. May be called without `open`."""
