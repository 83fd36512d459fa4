"""Every vector file against the real functions. The files serve implementations in any language."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from claudemesh import errors
from claudemesh.crypto import statements
from claudemesh.crypto.backup import open_backup, seal_backup
from claudemesh.crypto.envelope import Sealed, open_sealed, padded_length, seal
from claudemesh.crypto.identity import open_attestation, open_card, safety_number, session_keys
from claudemesh.crypto.invite import InviteLink, parse_link
from claudemesh.crypto.primitives import box_key_of, signing_key
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.heads import claimed_head, classify_head, judge_claim, open_head
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import BoxId
from tests.vectors.documents import _link
from tests.vectors.documents_roster import state_of
from tests.vectors.generate import FAMILIES, text_of

FOLDER = Path(__file__).parent
Vector = dict[str, Any]


def _load(family: str) -> Vector:
    document: Vector = json.loads((FOLDER / f"{family}.json").read_text(encoding="ascii"))
    return document


def _cases(family: str) -> Any:
    document = _load(family)
    cases = [pytest.param(document, case, id=f"{family}: {case['name']}") for case in document["cases"]]
    return pytest.mark.parametrize(("document", "case"), cases)


def _run(case: Vector, action: Callable[[], Any]) -> Any:
    """Perform `action`, which must succeed or fail exactly as the case says."""
    if case["error"] is None:
        return action()
    with pytest.raises(getattr(errors, case["error"])) as refusal:
        action()
    assert type(refusal.value).__name__ == case["error"]
    assert refusal.value.code == case["code"]
    if case.get("detail") is not None:
        assert refusal.value.detail == case["detail"]
    return None


def _statement(case: Vector) -> Statement:
    return Statement(**case["statement"])


def _log(document: Vector) -> Roster:
    roster = Roster()
    for entry in document["entries"]:
        roster.apply(Entry(**entry))
    return roster


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_vectors_are_reproduced_from_their_seeds(family: str) -> None:
    """An unchanged protocol writes the same bytes; a changed one must be decided, not happen."""
    assert (FOLDER / f"{family}.json").read_text(encoding="ascii") == text_of(family)


def test_every_vector_file_has_a_generator() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(FAMILIES)


@_cases("canonical")
def test_canonical(document: Vector, case: Vector) -> None:
    raw = bytes.fromhex(case["raw"])

    value = _run(case, lambda: statements.decode(raw))

    assert value == case.get("value")
    assert value is None or statements.encode(value) == raw


@_cases("signatures")
def test_signature(document: Vector, case: Vector) -> None:
    body = bytes.fromhex(case["body"])

    _run(case, lambda: statements.verify_bytes(case["public"], case["context"], body, case["signature"]))

    if case["error"] is None:
        signer = signing_key(bytes.fromhex(document["seed"]))
        assert statements.sign_bytes(signer, case["context"], body) == case["signature"]


@_cases("digests")
def test_digest(document: Vector, case: Vector) -> None:
    assert statements.digest(case["context"], bytes.fromhex(case["body"])) == case["digest"]


@_cases("derivation")
def test_derivation(document: Vector, case: Vector) -> None:
    derived = statements.derive(bytes.fromhex(case["key"]), case["label"], bytes.fromhex(case["context"]))

    assert derived.hex() == case["derived"]


@_cases("padding")
def test_padding(document: Vector, case: Vector) -> None:
    assert padded_length(case["length"]) == case["padded"]


@_cases("attestations")
def test_attestation(document: Vector, case: Vector) -> None:
    opened = _run(case, lambda: open_attestation(_statement(case)))

    if opened is not None:
        body = json.loads(case["statement"]["b"])
        assert (opened.member, opened.session, opened.box) == (body["member"], body["sess"], body["sbox"])
        assert (opened.issued_at, opened.expires_at) == (body["iat"], body["exp"])
        assert opened.capabilities == tuple(body["caps"])


@_cases("cards")
def test_card(document: Vector, case: Vector) -> None:
    card = _run(case, lambda: open_card(_statement(case)))

    if card is not None:
        body = json.loads(case["statement"]["b"])
        assert (card.member, card.number, card.box) == (body["member"], body["cs"], body["box"])
        assert card.dead == tuple(body["dead"])


@_cases("safety_numbers")
def test_safety_number(document: Vector, case: Vector) -> None:
    assert safety_number(case["one"], case["other"]) == case["number"]


@_cases("envelope")
def test_envelope(document: Vector, case: Vector) -> None:
    secret, nonce = bytes.fromhex(document["recipient_secret"]), bytes.fromhex(document["nonce"])
    attestation = open_attestation(Statement(**document["attestation"]))
    sealed = Sealed(nonce, bytes.fromhex(case["ciphertext"]))

    opened = _run(case, lambda: open_sealed(sealed, attestation, secret))

    if opened is not None:
        assert (opened.header, opened.body.hex()) == (case["header"], case["body"])
        session = session_keys(bytes.fromhex(document["session_entropy"]))
        recipient = BoxId(box_key_of(secret).public)
        assert seal(case["header"], opened.body, session, recipient, nonce) == sealed


@_cases("links")
def test_link(document: Vector, case: Vector) -> None:
    link: InviteLink | None = _run(case, lambda: parse_link(case["text"]))

    if link is not None:
        assert _link(link) == case["link"]
        assert (link.text() == case["text"]) == case["written"]


@_cases("replay")
def test_replay(document: Vector, case: Vector) -> None:
    window = ReplayWindow()

    for step in case["steps"]:
        if step["code"] is None:
            window, gap = window.accept(step["counter"])
            assert gap == step["gap"]
        else:
            with pytest.raises(errors.EnvelopeRefused, match=step["code"]):
                window.accept(step["counter"])


@_cases("backup")
def test_backup(document: Vector, case: Vector) -> None:
    sealed, passphrase = bytes.fromhex(case["sealed"]), bytes.fromhex(case["passphrase"])

    config = _run(case, lambda: open_backup(sealed, passphrase))

    if config is not None:
        assert config.hex() == case["config"]
        entropy = bytes.fromhex(document["entropy"])
        assert seal_backup(config, passphrase, entropy, operations=1, memory_bytes=8 << 20) == sealed


def test_roster_log_adds_up_to_its_state() -> None:
    document = _load("roster_log")
    roster = Roster()

    for case in document["cases"]:
        checked = roster.apply(Entry(**case["entry"]))
        assert checked.digest == case["digest"]

    assert state_of(roster) == document["state"]
    assert {case["name"] for case in document["cases"]} == {
        *("genesis", "invite", "uninvite", "admit", "revoke", "rekey", "role", "recover"),
        *("chan", "chan_add", "chan_del", "broker"),
    }


@_cases("roster_refused")
def test_roster_refuses(document: Vector, case: Vector) -> None:
    roster = _log(document)
    head = roster.head

    _run(case, lambda: roster.apply(Entry(**case["entry"]), document["now"]))

    assert roster.head == head


@_cases("heads")
def test_head(document: Vector, case: Vector) -> None:
    roster = _log(document)

    head = _run(case, lambda: open_head(_statement(case), roster))

    if head is not None:
        assert classify_head(head, roster).value == case["standing"]


@_cases("gossip")
def test_gossip(document: Vector, case: Vector) -> None:
    roster = _log(document)
    assert roster.mesh is not None

    verdict = judge_claim(claimed_head(roster.mesh, case["header"]), roster, synced=case["synced"])

    assert verdict.value == case["verdict"]


def test_published_vectors_hold() -> None:
    """The values that docs/protocol.md prints, typed here by hand and not generated."""
    assert signing_key(bytes(range(32))).public == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert (
        statements.digest("roster", b'{"n":5,"op":"x","v":1}')
        == "3a41317ac0fbb0305cf289c472b992473922eacc618b41076cbefa0b6373f0f4"
    )
    assert (
        statements.derive(bytes(32), "chan", bytes(16)).hex()
        == "064f9fab0fb0365b66f27fd482435a55ad25295a2bb30eb632d327d2b8868ea7"
    )
    assert (
        InviteLink("wss://b/ws", "00" * 16, bytes(16)).invite_key().public
        == "9a9340c852d6e0417bb3d0f47635c8db2f4d1f48504140f01bfdd4c86872e83e"
    )
    assert [padded_length(length) for length in (1279, 1281, 5000, 10**6)] == [1280, 1344, 5120, 1_015_808]


def test_ed25519_is_that_of_rfc_8032() -> None:
    """Test 2 of RFC 8032 §7.1: the primitive under the labels is the standard one."""
    key = signing_key(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))

    assert key.public == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
