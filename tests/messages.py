"""A direct message from Alice to Bob with fixed keys, for tests that take it apart."""

from typing import Any

from claudemesh.crypto.envelope import Sealed, seal
from claudemesh.crypto.identity import Attestation, SessionKeys, attest, open_attestation, session_keys
from claudemesh.crypto.statements import Body
from claudemesh.protocol.limits import DAY_MS
from claudemesh.types import BoxId, MeshId
from tests.rosters import START, box, key

MESH = MeshId("5a" * 32)
NONCE = bytes(range(24))


def session(name: str) -> SessionKeys:
    """The session keys that go by `name`."""
    return session_keys((name.encode() * 64)[:64])


def attestation(peer: str = "alice", name: str = "session") -> Attestation:
    return open_attestation(attest(key(peer), MESH, session(name), START, DAY_MS))


def header(**changes: Any) -> Body:
    """All required fields of a message from Alice to Bob."""
    fields = {
        "v": 1,
        "k": "dm",
        "mesh": MESH,
        "from": key("alice").public,
        "sess": session("session").id,
        "to": key("bob").public,
        "kid": box("bob").public,
        "n": 1,
        "id": "1d" * 16,
        "ts": START,
        "prio": "next",
        "ct": "text/plain",
        "rs": 3,
        "rh": "33" * 32,
        "ra": START,
        "rg": "",
        "cs": 1,
    }
    return fields | changes


def sealed(body: bytes = b"hello bob", **changes: Any) -> Sealed:
    """Alice's message to Bob's box key."""
    return seal(header(**changes), body, session("session"), BoxId(box("bob").public), NONCE)
