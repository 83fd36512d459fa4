"""Canonical bytes, labelled signatures and exact fields (docs/spec/statements.md)."""

from typing import Any

import pytest

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.statements import Statement
from claudemesh.errors import BadSignature, ClaudemeshError, Malformed, Unopenable
from tests.rosters import box, key


def _code(call: Any, *arguments: Any) -> str:
    with pytest.raises(ClaudemeshError) as refusal:
        call(*arguments)
    return refusal.value.code


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([1], "cj_top"),
        ("x", "cj_top"),
        ({"A": 1}, "cj_key"),
        ({"": 1}, "cj_key"),
        ({"1a": 1}, "cj_key"),
        ({"a" * 25: 1}, "cj_key"),
        ({1: 1}, "cj_key"),
        ({"a": None}, "cj_type"),
        ({"a": 1.0}, "cj_type"),
        ({"a": b"x"}, "cj_type"),
        ({"a": 2**53}, "cj_int"),
        ({"a": -(2**53)}, "cj_int"),
        ({"a": "é"}, "cj_str"),
        ({"a": '"'}, "cj_str"),
        ({"a": "\\"}, "cj_str"),
        ({"a": "line\n"}, "cj_str"),
        ({"a": "\x7f"}, "cj_str"),
        ({"a": "x" * 1025}, "cj_str"),
        ({"a": [[[[[[1]]]]]]}, "cj_depth"),
    ],
)
def test_value_outside_the_subset_is_not_encoded(value: Any, code: str) -> None:
    assert _code(statements.encode, value) == code


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ({}, b"{}"),
        ({"b": 1, "a": 2}, b'{"a":2,"b":1}'),
        ({"a": True, "b": False}, b'{"a":true,"b":false}'),
        ({"a": [{"b": ""}, -1, "x y"]}, b'{"a":[{"b":""},-1,"x y"]}'),
        ({"a": 2**53 - 1, "b": -(2**53) + 1}, b'{"a":9007199254740991,"b":-9007199254740991}'),
        ({"a": [[[[[1]]]]]}, b'{"a":[[[[[1]]]]]}'),
        ({"a": "x" * 1024}, b'{"a":"' + b"x" * 1024 + b'"}'),
        ({"a" * 24: 0, "a_1": 0}, b'{"a_1":0,"' + b"a" * 24 + b'":0}'),
    ],
)
def test_value_of_the_subset_has_one_encoding(value: Any, raw: bytes) -> None:
    assert statements.encode(value) == raw
    assert statements.decode(raw) == value


def test_statement_is_decoded_up_to_its_size_limit() -> None:
    raw = b'{"a":"' + b"x" * 100 + b'"}'

    assert statements.decode(raw, len(raw)) == {"a": "x" * 100}
    assert _code(statements.decode, raw, len(raw) - 1) == "cj_len"


def test_fields_are_exactly_those_of_the_layout() -> None:
    required, optional = {"a": "int", "k": ("x", "y")}, {"h": "hex32"}

    def code(**body: Any) -> str:
        return _code(statements.check_fields, body, required, optional)

    statements.check_fields({"a": 0, "k": "x"}, required, optional)
    statements.check_fields({"a": 1, "k": "y", "h": "0f" * 32}, required, optional)
    assert code(a=0) == code(k="x") == code(a=0, k="x", other=1) == "field"
    assert code(a=-1, k="x") == code(a=True, k="x") == code(a="0", k="x") == code(a=0, k="z") == "field_type"
    assert code(a=0, k="x", h="0F" * 32) == code(a=0, k="x", h="0f" * 31) == code(a=0, k="x", h=5) == "field_type"
    assert code(a=0, k="x", h="0f" * 32 + "\n") == "field_type"


def test_true_is_not_one() -> None:
    """JSON's `true` equals 1 in Python; a version field must still be the number."""
    assert _code(statements.check_fields, {"v": True}, {"v": (1,)}) == "field_type"


def test_signature_holds_for_its_label_key_and_bytes_only() -> None:
    signature = statements.sign_bytes(key("alice"), "card", b"body")

    statements.verify_bytes(key("alice").public, "card", b"body", signature)
    assert _code(statements.verify_bytes, key("alice").public, "att", b"body", signature) == "bad_sig"
    assert _code(statements.verify_bytes, key("bob").public, "card", b"body", signature) == "bad_sig"
    assert _code(statements.verify_bytes, key("alice").public, "card", b"Body", signature) == "bad_sig"
    assert _code(statements.verify_bytes, "zz" * 32, "card", b"body", signature) == "bad_sig"
    assert _code(statements.verify_bytes, "00" * 32, "card", b"body", signature) == "bad_sig"


@pytest.mark.parametrize("form", ["", "00" * 63, "00" * 65, "0G" * 64, "AB" * 64, "00" * 64 + "\n"])
def test_signature_has_one_spelling(form: str) -> None:
    assert _code(statements.verify_bytes, key("alice").public, "card", b"body", form) == "sig_form"


def test_label_that_is_not_in_the_list_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        statements.sign_bytes(key("alice"), "anything", b"")


def test_statement_is_opened_by_its_signer() -> None:
    statement = statements.sign_statement({"a": 1}, "ack", key("alice"))

    assert statements.open_statement(statement, "ack") == {"a": 1}
    assert statements.open_statement(statement, "ack", key("alice").public) == {"a": 1}
    assert _code(statements.open_statement, statement, "ack", key("bob").public) == "stmt"
    assert _code(statements.open_statement, statement, "sth") == "bad_sig"


def test_signed_statement_is_still_refused_when_it_is_not_canonical() -> None:
    """A signer that signs loose bytes does not make them canonical."""
    loose = '{"b":1, "a":2}'
    signature = statements.sign_bytes(key("alice"), "ack", loose.encode())

    assert _code(statements.open_statement, Statement(loose, key("alice").public, signature), "ack") == "cj_noncanon"


@pytest.mark.parametrize("text", ['{"a":"é"}', '{"a":"\ud800"}'])
def test_statement_text_outside_ascii_is_refused_and_not_replaced(text: str) -> None:
    """Replacing a character would give two texts one signature."""
    replaced = text.encode("ascii", "replace")
    signature = statements.sign_bytes(key("alice"), "ack", replaced)
    statement = Statement(text, key("alice").public, signature)

    assert _code(statements.open_statement, statement, "ack") == "cj_str"
    assert _code(statements.statement_digest, statement, "ack") == "cj_str"


def test_digest_names_the_body_and_not_its_signature() -> None:
    mine = statements.sign_statement({"a": 1}, "att", key("alice"))
    yours = statements.sign_statement({"a": 1}, "att", key("bob"))

    assert statements.statement_digest(mine, "att") == statements.statement_digest(yours, "att")
    assert statements.statement_digest(mine, "att") != statements.statement_digest(mine, "card")


@pytest.mark.parametrize("text", ["=", "A", "AA==", "AB", "A A", "A+/", "AAAA\n", "ÄÄ", "AAAAA"], ids=repr)
def test_base64url_has_one_spelling(text: str) -> None:
    assert _code(statements.from_base64url, text) == "b64"


def test_base64url_round_trip() -> None:
    for length in range(8):
        raw = bytes(range(250, 250 + min(length, 6))) + b"\xff" * max(0, length - 6)
        assert statements.from_base64url(statements.to_base64url(raw)) == raw


@pytest.mark.parametrize(
    "low_order",
    [
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    ],
)
def test_box_to_a_low_order_point_is_refused(low_order: str) -> None:
    """Such a key would make the shared secret known to everybody (A31)."""
    with pytest.raises(Unopenable):
        primitives.box(b"x", b"\0" * 24, low_order, box("alice").secret)
    with pytest.raises(Unopenable):
        primitives.box_open(b"\0" * 32, b"\0" * 24, low_order, box("alice").secret)


def test_secret_keys_do_not_show() -> None:
    """A key in a log line or a traceback shows 8 digits of its public half."""
    for pair in (key("alice"), box("alice")):
        shown = repr(pair) + str(pair) + f"{pair}"
        assert pair.secret.hex()[:8] not in shown
        assert repr(pair.secret) not in shown
        assert pair.public[:8] in shown


def test_wrong_signature_is_a_fault_of_its_own_class() -> None:
    with pytest.raises(BadSignature):
        statements.verify_bytes(key("alice").public, "card", b"", "00" * 64)
    with pytest.raises(Malformed):
        statements.decode(b"")
