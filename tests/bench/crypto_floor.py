"""The floor of messages end to end: sealing and opening alone; run as a module, it prints microseconds."""

import os
import time

from claudemesh.crypto import envelope, identity
from claudemesh.types import BoxId
from tests.bench.bench_mesh import found, now_ms

MESSAGES = 4_000
BODY = b"x" * 300


def measure_us() -> float:
    """Microseconds to seal one message and to open it, between two members whose keys are known."""
    mesh = found("00" * 32, 2)
    alice, bob = mesh.speaker(0), mesh.speaker(1)
    attestation = identity.open_attestation(alice.attestation)
    header = {
        "v": 1,
        "k": "dm",
        "mesh": mesh.id,
        "from": alice.peer,
        "sess": alice.session.id,
        "to": bob.peer,
        "kid": bob.session.box.public,
        "id": os.urandom(16).hex(),
        "ts": now_ms(),
        "prio": "next",
        "ct": "text/plain",
        "rs": mesh.roster.seq,
        "rh": mesh.roster.head,
        "ra": now_ms(),
        "rg": "00" * 64,
        "cs": 1,
    }
    to = BoxId(bob.session.box.public)
    started = time.perf_counter()
    for number in range(MESSAGES):
        sealed = envelope.seal({**header, "n": number}, BODY, alice.session, to, os.urandom(24))
        envelope.open_sealed(sealed, attestation, bob.session.box.secret)
    return (time.perf_counter() - started) / MESSAGES * 1e6


if __name__ == "__main__":
    print(measure_us())
