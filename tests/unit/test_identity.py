"""A peer's word about its sessions and its box key (docs/spec/statements.md §3, §4)."""

import json
from typing import Any

import pytest

from claudemesh.crypto import statements
from claudemesh.crypto.identity import (
    ATTESTATION_MAX_MS,
    CAPABILITIES,
    MAX_DEAD_SESSIONS,
    attest,
    issue_card,
    open_attestation,
    open_card,
    safety_number,
    session_keys,
)
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError
from claudemesh.types import BoxId, Digest, PeerId, SessionId
from tests.messages import MESH, session
from tests.rosters import START, box, key

DAY = 86_400_000


def _attestation(**changes: Any) -> Statement:
    """Alice's attestation with fields changed, signed by her again."""
    statement = attest(key("alice"), MESH, session("session"), START, DAY)
    return statements.sign_statement(json.loads(statement.b) | changes, "att", key("alice"))


def _card(**changes: Any) -> Statement:
    statement = issue_card(key("alice"), MESH, 3, BoxId(box("alice").public), START, 7, Digest("33" * 32))
    return statements.sign_statement(json.loads(statement.b) | changes, "card", key("alice"))


def _code(call: Any, statement: Statement) -> str:
    with pytest.raises(ClaudemeshError) as refusal:
        call(statement)
    return refusal.value.code


def test_attestation_says_which_session_speaks_for_whom_and_until_when() -> None:
    opened = open_attestation(attest(key("alice"), MESH, session("session"), START, DAY, ("dm", "chan")))

    assert (opened.mesh, opened.member) == (MESH, key("alice").public)
    assert (opened.session, opened.box) == (session("session").id, session("session").box.public)
    assert (opened.issued_at, opened.expires_at) == (START, START + DAY)
    assert opened.capabilities == ("chan", "dm")


def test_attestation_is_named_by_its_bytes() -> None:
    assert open_attestation(_attestation()).digest == statements.statement_digest(_attestation(), "att")
    assert open_attestation(_attestation()).digest != open_attestation(_attestation(exp=START + 1)).digest


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"member": key("bob").public}, "att"),
        ({"exp": START}, "att_ttl"),
        ({"exp": START + ATTESTATION_MAX_MS + 1}, "att_ttl"),
        ({"caps": ["dm", "chan"]}, "field_type"),
        ({"caps": ["dm", "dm"]}, "field_type"),
        ({"caps": ["root"]}, "field_type"),
        ({"caps": [1]}, "field_type"),
        ({"caps": [["dm"]]}, "field_type"),
        ({"caps": "dm"}, "field_type"),
        ({"note": 1}, "field"),
        ({"v": 2}, "field_type"),
        ({"sess": "xyz"}, "field_type"),
    ],
    ids=str,
)
def test_attestation_that_breaks_a_rule_is_refused(changes: dict[str, Any], code: str) -> None:
    assert _code(open_attestation, _attestation(**changes)) == code


def test_attestation_may_last_seven_days_and_hold_every_capability() -> None:
    statement = attest(key("alice"), MESH, session("session"), START, ATTESTATION_MAX_MS, tuple(reversed(CAPABILITIES)))

    assert open_attestation(statement).capabilities == CAPABILITIES


def test_session_cannot_attest_itself() -> None:
    """Only the peer key does; a session thief cannot widen or prolong what it stole (A28)."""
    body = json.loads(_attestation().b)
    own = statements.sign_statement(body, "att", session("session").sign)
    unsigned = Statement(own.b, key("alice").public, own.s)

    assert _code(open_attestation, own) == "att"
    assert _code(open_attestation, unsigned) == "bad_sig"


def test_card_says_which_box_key_a_peer_reads_with() -> None:
    dead = (SessionId("aa" * 32), SessionId("bb" * 32))
    statement = issue_card(key("alice"), MESH, 3, BoxId(box("alice").public), START, 7, Digest("33" * 32), dead)

    card = open_card(statement)

    assert (card.mesh, card.member, card.number) == (MESH, key("alice").public, 3)
    assert (card.box, card.issued_at, card.dead) == (box("alice").public, START, dead)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"member": key("bob").public}, "stmt"),
        ({"dead": ["short"]}, "field_type"),
        ({"dead": [1]}, "field_type"),
        ({"dead": ["aa" * 32] * (MAX_DEAD_SESSIONS + 1)}, "field_type"),
        ({"cs": -1}, "field_type"),
        ({"box": "00"}, "field_type"),
        ({"name": "alice"}, "field"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_card_that_breaks_a_rule_is_refused(changes: dict[str, Any], code: str) -> None:
    assert _code(open_card, _card(**changes)) == code


def test_card_with_a_swapped_box_key_is_refused() -> None:
    """The broker stores cards; it cannot change one (A09)."""
    card = _card()
    swapped = Statement(card.b.replace(box("alice").public, box("eve").public), card.k, card.s)

    assert _code(open_card, swapped) == "bad_sig"


def test_card_and_attestation_do_not_stand_for_each_other() -> None:
    assert _code(open_attestation, _card()) == "bad_sig"
    assert _code(open_card, _attestation()) == "bad_sig"


def test_card_keeps_the_newest_dead_sessions() -> None:
    dead = tuple(SessionId(f"{index:064x}") for index in range(MAX_DEAD_SESSIONS + 6))

    card = open_card(issue_card(key("alice"), MESH, 1, BoxId("00" * 32), START, 0, Digest("33" * 32), dead))

    assert card.dead == dead[6:]


def test_session_keys_come_from_two_independent_halves() -> None:
    entropy = bytes(range(64))

    keys, other = session_keys(entropy), session_keys(entropy[:32] + bytes(32))

    assert keys.id == other.id == keys.sign.public
    assert keys.box.public != other.box.public


def test_safety_number_is_the_same_for_both_and_for_nobody_else() -> None:
    alice, bob, carol = (PeerId(key(name).public) for name in ("alice", "bob", "carol"))

    number = safety_number(alice, bob)

    assert number == safety_number(bob, alice)
    assert number != safety_number(alice, carol)
    assert [len(group) for group in number.split(" ")] == [5] * 6
    assert number.replace(" ", "").isdigit()
