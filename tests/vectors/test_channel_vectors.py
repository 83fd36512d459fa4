"""The vector files of channels against the real functions."""

from claudemesh.crypto import channel_envelope
from claudemesh.crypto.epoch_record import open_record
from claudemesh.crypto.epochs import channel_key, make_epoch, open_slot
from claudemesh.crypto.frames import Sealed
from claudemesh.crypto.identity import open_attestation, session_keys
from claudemesh.crypto.primitives import box_key_of
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.epoch_handover import share_history, take_history, take_repair
from claudemesh.protocol.epochs import EpochBook, HeldEpoch
from claudemesh.types import BoxId, MeshId, UnixMillis
from tests.vectors.test_vectors import Vector, _cases, _load, _run

NOW = UnixMillis(1)


@_cases("epochs")
def test_epoch(document: Vector, case: Vector) -> None:
    """A record verifies and its slot opens with the one key that it names, or neither is believed."""
    box = box_key_of(bytes.fromhex(case["box_secret"]))

    def accept() -> tuple[str, str]:
        record = open_record(Statement(**case["record"]))
        return record.id, open_slot(case["slot"], record, {BoxId(box.public): box.secret}).hex()

    accepted = _run(case, accept)

    assert accepted is None or accepted == (case["id"], case["secret_hex"])


def test_epoch_is_made_from_its_entropy() -> None:
    document = _load("epochs")
    session = session_keys(bytes.fromhex(document["session_entropy"]))

    made = make_epoch(document["draft"], session, document["boxes"], bytes.fromhex(document["entropy"]))

    assert made.statement == Statement(**document["cases"][0]["record"])
    assert list(made.slots) == document["slots"]
    assert made.slots[-1] == document["useless_slot"]
    for known in document["channel_keys"]:
        assert channel_key(made.secret, known["channel"]).hex() == known["key"]


@_cases("channel_envelope")
def test_channel_envelope(document: Vector, case: Vector) -> None:
    key, nonce = bytes.fromhex(document["key"]), bytes.fromhex(document["nonce"])
    attestation = open_attestation(Statement(**document["attestation"]))
    sealed = Sealed(nonce, bytes.fromhex(case["ciphertext"]))

    opened = _run(case, lambda: channel_envelope.open_sealed(sealed, attestation, key))

    if opened is not None:
        assert (opened.header, opened.body.hex()) == (case["header"], case["body"])
        session = session_keys(bytes.fromhex(document["session_entropy"]))
        assert channel_envelope.seal(case["header"], opened.body, session, key, nonce) == sealed


@_cases("epoch_history")
def test_epoch_history(document: Vector, case: Vector) -> None:
    record = open_record(Statement(**document["held"]["record"]))
    held = HeldEpoch(record, bytes.fromhex(document["held"]["secret"]), NOW)

    taken = _run(case, lambda: take_history(case["body"], EpochBook([held]), NOW))

    if taken is not None:
        assert (taken.id, taken.secret.hex(), taken.is_vouched) == (case["id"], case["secret"], False)
        assert share_history(taken, held, bytes.fromhex(document["nonce"])) == case["body"]


@_cases("epoch_repair")
def test_epoch_repair(document: Vector, case: Vector) -> None:
    taken = _run(case, lambda: take_repair(case["body"], MeshId(document["mesh"]), NOW))

    if taken is not None:
        assert (taken.id, taken.secret.hex(), taken.is_vouched) == (case["body"]["ep"], case["body"]["k"], False)
