"""Canonical bytes: one encoding per value, one value per encoding (docs/spec/statements.md §1)."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claudemesh.crypto import statements
from claudemesh.crypto.identity import attest, issue_card, open_attestation, open_card
from claudemesh.crypto.statements import FieldSet, Statement
from claudemesh.errors import ClaudemeshError, Malformed
from claudemesh.protocol.heads import open_head, sign_head
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import BoxId, Digest, MeshId
from tests.messages import MESH, session
from tests.rosters import START, box, family, key

PLAIN = "".join(chr(code) for code in range(32, 127) if chr(code) not in '"\\')
names = st.from_regex(r"[a-z][a-z0-9_]{0,23}", fullmatch=True)
leaves = st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(PLAIN, max_size=40)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=12
)
bodies = st.dictionaries(names, values, max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _encodable(body: dict[str, Any]) -> bool:
    try:
        statements.encode(body)
    except Malformed as refusal:
        return refusal.code != "cj_depth"
    return True


@given(bodies.filter(_encodable))
def test_encoding_round_trips_and_is_plain_json(body: dict[str, Any]) -> None:
    """Any JSON library reads the bytes, and sorted keys without spaces are the only way to write them."""
    try:
        raw = statements.encode(body)
    except Malformed:
        return

    assert statements.decode(raw) == body == json.loads(raw)
    assert raw == json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


@given(json_values)
def test_any_json_is_canonical_or_refused(value: Any) -> None:
    raw = json.dumps(value).encode()
    try:
        decoded = statements.decode(raw)
    except Malformed:
        return

    assert statements.encode(decoded) == raw


@given(st.binary(max_size=200))
@example(b'{"a":' + b"[" * 5000)
@example(b'{"a":' + b"9" * 5000 + b"}")
def test_any_bytes_are_canonical_or_refused(raw: bytes) -> None:
    """Nothing but `Malformed` comes out, also for nesting and numbers that exhaust a parser."""
    try:
        decoded = statements.decode(raw)
    except Malformed:
        return

    assert statements.encode(decoded) == raw


@given(st.binary(max_size=60))
def test_base64url_is_one_text_per_value(raw: bytes) -> None:
    assert statements.from_base64url(statements.to_base64url(raw)) == raw


@given(st.text("ABQgwxyz089-_+/= \n", max_size=12) | st.text(max_size=6))
def test_any_text_is_the_one_spelling_of_its_bytes_or_refused(text: str) -> None:
    """Neither padding, nor the other alphabet, nor bits beyond the last byte make a second text of one value."""
    try:
        raw = statements.from_base64url(text)
    except Malformed:
        return

    assert statements.to_base64url(raw) == text


FIELDS = FieldSet({"v": (1,), "id": "hex16", "n": "int", "ct": str}, {"re": "hex16", "to": ("x", "y")})
FLAT: dict[str, Any] = {"v": 1, "id": "0" * 32, "n": 7, "ct": "text/plain"}
spoilt = st.fixed_dictionaries(
    {},
    optional={
        "v": st.sampled_from([1, True, 1.0, 2]),
        "id": st.sampled_from(["0" * 31, "0" * 31 + "A", "0" * 32 + "\n", 5, None]),
        "n": st.sampled_from([0, -1, 2**53 - 1, 2**53, 2**70, True, 1.5, "7"]),
        "ct": st.text(max_size=3) | st.sampled_from(['"', "\\", "x" * 1_025, ["text"]]),
        "re": st.sampled_from(["f" * 32, "F" * 32, 0]),
        "to": st.sampled_from(["x", "z", ["x"]]),
        "zz": st.just(1),
    },
)


def _slowly(raw: bytes) -> dict[str, Any] | None:
    try:
        body = statements.decode(raw)
        statements.check_fields(body, FIELDS.required, FIELDS.optional)
    except Malformed:
        return None
    return body


@given(spoilt, st.sets(st.sampled_from(sorted(FLAT))), st.booleans())
@example(changes={}, missing=set(), spaced=False)
def test_fields_checked_at_one_go_are_those_checked_one_by_one(
    changes: dict[str, Any], missing: set[str], spaced: bool
) -> None:
    """The quick way admits exactly what the two checks admit one after the other, both ways."""
    body = {name: value for name, value in (FLAT | changes).items() if name not in missing}
    raw = json.dumps(body, sort_keys=True, separators=(", ", ":") if spaced else (",", ":")).encode()

    expected = _slowly(raw)

    assert statements.decode_fields(raw, FIELDS, 4_096) == expected
    if expected is not None:
        assert statements.encode_fields(body, FIELDS) == raw
    elif not spaced:
        with pytest.raises(Malformed):
            statements.encode_fields(body, FIELDS)


@given(st.text(max_size=12))
def test_any_text_is_base64url_or_refused(text: str) -> None:
    try:
        raw = statements.from_base64url(text)
    except Malformed:
        return

    assert statements.to_base64url(raw) == text


LOG = family()
GENUINE = {
    "att": attest(key("alice"), MESH, session("session"), START, 1000),
    "card": issue_card(key("alice"), MESH, 1, BoxId(box("alice").public), START, 0, Digest("33" * 32)),
    "sth": sign_head(MeshId(str(LOG.roster.mesh)), LOG.roster.seq, LOG.roster.head, START, key("broker")),
}
OPENERS = {
    "att": open_attestation,
    "card": open_card,
    "sth": lambda statement: open_head(statement, LOG.roster),
}
edits = st.tuples(st.integers(0, 2**31), st.integers(0, 2), st.text(max_size=3))


def _edited(text: str, edit: tuple[int, int, str]) -> str:
    """Replace, at one place, up to two characters by others."""
    place, cut, put = edit
    start = place % (len(text) + 1)
    return text[:start] + put + text[start + cut :]


@given(st.sampled_from(sorted(GENUINE)), st.sampled_from(["b", "k", "s"]), edits)
@example("att", "b", (1, 0, "\ud800"))
def test_edited_statement_opens_unchanged_or_not_at_all(context: str, part: str, edit: tuple[int, int, str]) -> None:
    """Whatever is done to a statement, it is refused by an error of ours; a `k` of another spelling included."""
    genuine = GENUINE[context]
    fields = {"b": genuine.b, "k": genuine.k, "s": genuine.s}
    fields[part] = _edited(fields[part], edit)
    try:
        OPENERS[context](Statement(**fields))
    except ClaudemeshError:
        return

    assert fields == {"b": genuine.b, "k": genuine.k, "s": genuine.s}


@given(st.integers(0, len(LOG.entries) - 1), st.booleans(), edits)
def test_edited_entry_is_applied_unchanged_or_not_at_all(index: int, in_body: bool, edit: tuple[int, int, str]) -> None:
    genuine = LOG.entries[index]
    roster = Roster.restore(LOG.entries[:index])
    if in_body:
        entry = Entry(_edited(genuine.b, edit), genuine.s)
    else:
        first, *others = genuine.s
        kept = {public: genuine.s[public] for public in others}
        entry = Entry(genuine.b, kept | {first: _edited(genuine.s[first], edit)})
    try:
        roster.apply(entry)
    except ClaudemeshError:
        assert (roster.seq, len(roster.members)) == (index - 1, len(Roster.restore(LOG.entries[:index]).members))
        return

    assert entry == genuine
