"""Signed heads, and what each difference between two heads means (docs/spec/roster.md §5, §6)."""

import json
from typing import Any

import pytest

from claudemesh.crypto.statements import sign_statement
from claudemesh.errors import BadSignature, Malformed
from claudemesh.protocol.heads import (
    Gossip,
    SignedHead,
    Standing,
    claimed_head,
    classify_head,
    judge_claim,
    open_head,
    sign_head,
)
from claudemesh.protocol.roster import Roster
from claudemesh.types import Digest, MeshId
from tests.rosters import START, Log, channel, family, key

ELSEWHERE = Digest("ab" * 32)


def _claim(log: Log, seq: int, head: str, signer: str | None = "broker") -> SignedHead:
    """What a message header would name, signed by `signer` or by nobody."""
    mesh = MeshId(str(log.roster.mesh))
    signature = sign_head(mesh, seq, Digest(head), START, key(signer)).s if signer else ""
    return claimed_head(mesh, {"rs": seq, "rh": head, "ra": START, "rg": signature})


def _moved() -> Log:
    """A log whose last entry hands the mesh from `broker` to `broker 2`."""
    log = family()
    log.append("broker", "alice", bk=key("broker 2").public)
    return log


def test_head_is_a_statement_of_five_fields() -> None:
    """The layout is frozen: headers carry only the values, and receivers rebuild these bytes."""
    statement = sign_head(MeshId("11" * 32), 7, ELSEWHERE, START, key("broker"))

    assert json.loads(statement.b) == {"v": 1, "mesh": "11" * 32, "seq": 7, "head": ELSEWHERE, "at": START}
    assert statement.k == key("broker").public


def test_brokers_head_is_opened() -> None:
    log = family()
    mesh = MeshId(str(log.roster.mesh))
    statement = sign_head(mesh, log.roster.seq, log.roster.head, START, key("broker"))

    head = open_head(statement, log.roster)

    assert head == SignedHead(mesh, log.roster.seq, log.roster.head, START, statement.s)
    assert classify_head(head, log.roster) is Standing.CURRENT


@pytest.mark.parametrize(
    ("changes", "signer", "code"),
    [
        ({}, "mallory", "stmt"),
        ({"mesh": "11" * 32}, "broker", "stmt"),
        ({"note": 1}, "broker", "field"),
        ({"seq": -1}, "broker", "field_type"),
        ({"v": 2}, "broker", "field_type"),
    ],
    ids=str,
)
def test_head_of_another_key_mesh_or_form_is_refused(changes: dict[str, Any], signer: str, code: str) -> None:
    log = family()
    body = {"v": 1, "mesh": log.roster.mesh, "seq": 0, "head": log.roster.digest_at(0), "at": START} | changes

    with pytest.raises(Malformed) as refusal:
        open_head(sign_statement(body, "sth", key(signer)), log.roster)

    assert refusal.value.code == code


def test_head_signed_under_another_label_is_refused() -> None:
    log = family()
    body = {"v": 1, "mesh": log.roster.mesh, "seq": 0, "head": log.roster.digest_at(0), "at": START}

    with pytest.raises(BadSignature):
        open_head(sign_statement(body, "ack", key("broker")), log.roster)


# Gossip


@pytest.mark.parametrize("signer", ["broker", "mallory", None])
def test_known_head_is_accepted_whoever_signed_it(signer: str | None) -> None:
    """Equal or prefix: the chain itself is the proof, so no signature is needed."""
    log = family()

    for seq in (0, 3, log.roster.seq):
        claim = _claim(log, seq, log.roster.digest_at(seq), signer)
        assert judge_claim(claim, log.roster, synced=False) is Gossip.ACCEPT


@pytest.mark.parametrize("signer", ["broker", "mallory", None])
def test_head_that_is_ahead_makes_the_receiver_sync_first(signer: str | None) -> None:
    """Whose signature counts may depend on entries that are not here yet."""
    log = family()

    claim = _claim(log, log.roster.seq + 1, ELSEWHERE, signer)

    assert judge_claim(claim, log.roster, synced=False) is Gossip.SYNC


@pytest.mark.parametrize("synced", [False, True])
def test_signed_conflict_is_a_fork(synced: bool) -> None:
    log = family()

    for seq in (0, log.roster.seq):
        assert judge_claim(_claim(log, seq, ELSEWHERE), log.roster, synced=synced) is Gossip.FORK


def test_signed_head_that_the_broker_does_not_hand_over_is_withheld() -> None:
    log = family()

    claim = _claim(log, log.roster.seq + 1, ELSEWHERE)

    assert judge_claim(claim, log.roster, synced=True) is Gossip.WITHHELD


@pytest.mark.parametrize("signer", ["mallory", "alice", None])
def test_member_cannot_freeze_others_by_its_word_alone(signer: str | None) -> None:
    """A conflict or a made-up future without the broker's signature costs only that message (A27)."""
    log = family()
    conflict = _claim(log, 2, ELSEWHERE, signer)
    future = _claim(log, 999, ELSEWHERE, signer)

    assert judge_claim(conflict, log.roster, synced=True) is Gossip.UNPROVEN
    assert judge_claim(future, log.roster, synced=True) is Gossip.UNPROVEN


@pytest.mark.parametrize("field", ["mesh", "seq", "head", "at"])
def test_signature_proves_exactly_the_head_that_it_was_made_for(field: str) -> None:
    log = family()
    genuine = _claim(log, 2, ELSEWHERE)
    other = {"mesh": "11" * 32, "seq": 3, "head": "cd" * 32, "at": START + 1}[field]
    values = {name: getattr(genuine, name) for name in ("mesh", "seq", "head", "at", "signature")}

    forged = SignedHead(**(values | {field: other}))

    assert judge_claim(genuine, log.roster, synced=True) is Gossip.FORK
    assert judge_claim(forged, log.roster, synced=True) is Gossip.UNPROVEN


def test_head_of_another_mesh_of_the_same_broker_proves_nothing() -> None:
    log = family()
    other = MeshId("11" * 32)
    signature = sign_head(other, 2, ELSEWHERE, START, key("broker")).s

    claim = SignedHead(other, 2, ELSEWHERE, START, signature)

    assert judge_claim(claim, log.roster, synced=True) is Gossip.UNPROVEN


# A move to another broker


@pytest.mark.parametrize("signer", ["broker", "broker 2"])
def test_entry_that_moves_the_mesh_is_headed_by_the_old_or_the_new_broker(signer: str) -> None:
    """The old broker's last act is to take the entry that retires it."""
    log = _moved()
    statement = sign_head(MeshId(str(log.roster.mesh)), log.roster.seq, log.roster.head, START, key(signer))

    head = open_head(statement, log.roster)

    assert classify_head(head, log.roster) is Standing.CURRENT


def test_retired_broker_has_no_say_beyond_its_last_act() -> None:
    log = _moved()
    log.append("chan", "alice", chan=channel("x"), kind="open")
    mesh = MeshId(str(log.roster.mesh))

    for seq, head in ((log.roster.seq, log.roster.head), (2, log.roster.digest_at(2))):
        with pytest.raises(Malformed, match="stmt"):
            open_head(sign_head(mesh, seq, head, START, key("broker")), log.roster)
    conflict = _claim(log, 2, ELSEWHERE, "broker")
    assert judge_claim(conflict, log.roster, synced=True) is Gossip.UNPROVEN


def test_broker_that_signs_two_moves_has_forked_the_mesh() -> None:
    log = _moved()

    claim = _claim(log, log.roster.seq, ELSEWHERE, "broker")

    assert judge_claim(claim, log.roster, synced=True) is Gossip.FORK


def test_new_broker_counts_for_every_seq() -> None:
    """It may hold only the beginning of the log while peers upload the rest."""
    log = _moved()
    statement = sign_head(MeshId(str(log.roster.mesh)), 1, log.roster.digest_at(1), START, key("broker 2"))

    assert classify_head(open_head(statement, log.roster), log.roster) is Standing.SHORTER


# The broker's own head after a sync


@pytest.mark.parametrize(
    ("offset", "head", "standing"),
    [
        (0, None, Standing.CURRENT),
        (-2, None, Standing.SHORTER),
        (-2, ELSEWHERE, Standing.REWRITTEN),
        (0, ELSEWHERE, Standing.REWRITTEN),
        (1, ELSEWHERE, Standing.LONGER),
    ],
)
def test_brokers_head_is_current_shorter_rewritten_or_longer(
    offset: int, head: Digest | None, standing: Standing
) -> None:
    log = family()
    seq = log.roster.seq + offset

    claim = _claim(log, seq, head or log.roster.digest_at(seq))

    assert classify_head(claim, log.roster) is standing


def test_shorter_broker_is_healed_by_uploading_the_rest() -> None:
    """A broker restored from an old backup takes the missing entries as any other; each proves itself."""
    log = family()
    restored = Roster.restore(log.entries[:3])

    for entry in log.entries[restored.seq + 1 :]:
        restored.apply(entry)

    assert restored.head == log.roster.head
