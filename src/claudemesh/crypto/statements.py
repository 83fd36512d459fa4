"""Canonical JSON, domain-separated signatures, hashes and key derivation.

Every signed statement is one canonical JSON byte string; it is signed, hashed, stored and forwarded
as those bytes. Nobody re-serialises. Source: docs/spec/statements.md; vectors in tests/vectors.
"""

import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from claudemesh.crypto import primitives
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import BadSignature, Malformed
from claudemesh.types import Digest

PREFIX: Final = b"claudemesh/1/"
MAX_STATEMENT_BYTES: Final = 16_384
MAX_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 6

CONTEXTS: Final = frozenset(
    {
        "roster",
        "card",
        "att",
        "epoch",
        "dm",
        "ch",
        "hello",
        "claim",
        "challenge",
        "ack",
        "accept",
        "sth",
        "sys",
        "s2s",
        "audit",
        "audit-cp",
        "slot",
    }
)

_KEY = re.compile(r"[a-z][a-z0-9_]{0,23}\Z")
_STRING = re.compile(r"[ !#-\[\]-~]{0,1024}\Z")
_HEX32 = re.compile(r"[0-9a-f]{64}\Z")
_HEX16 = re.compile(r"[0-9a-f]{32}\Z")
_SIGNATURE = re.compile(r"[0-9a-f]{128}\Z")
_FORMS: Final = {"hex32": _HEX32.match, "hex16": _HEX16.match, "sig": re.compile(r"(?:[0-9a-f]{128})?\Z").match}
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""What the other alphabet has, and padding, is not in any alphabet."""
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
_decode_any: Final = msgspec.json.Decoder().decode

Body = dict[str, Any]
FieldType = str | type | tuple[Any, ...]
"""What a field may hold: "hex32", "hex16", "sig", "int" (≥ 0), a Python type, or the allowed values."""


class FieldSet:
    """The exact fields of a flat body that is read and written for every message, prepared to be checked at one go."""

    def __init__(self, required: Mapping[str, FieldType], optional: Mapping[str, FieldType]) -> None:
        """Prepare fields of strings, integers and allowed values; with any other nothing is admitted at one go."""
        self.required = required
        self.optional = optional
        kinds = list(required.items())
        self._texts = [(name, _text_form(kind)) for name, kind in kinds if _is_text(kind)]
        self._integers = [name for name, kind in kinds if kind == "int"]
        self._choices = [(name, _choices(kind)) for name, kind in kinds if isinstance(kind, tuple)]
        self._is_flat = len(self._texts) + len(self._integers) + len(self._choices) == len(required)

    def admit(self, body: Body) -> bool:
        """Whether `body` has exactly these fields and is canonical; where not, the functions below say why."""
        try:
            for name, form in self._texts:
                if form(body[name]) is None:
                    return False
            for name in self._integers:
                value = body[name]
                if value.__class__ is not int or not 0 <= value <= MAX_INTEGER:
                    return False
            for name, allowed in self._choices:
                if (body[name].__class__, body[name]) not in allowed:
                    return False
        except (KeyError, TypeError):
            return False
        return self._is_flat and (len(body) == len(self.required) or self._admit_optional(body))

    def _admit_optional(self, body: Body) -> bool:
        found = {name: value for name, value in body.items() if name not in self.required}
        return all(name in self.optional and _is(value, self.optional[name]) for name, value in found.items()) and (
            _is_canonical(found)
        )


class Statement(msgspec.Struct, frozen=True):
    """A signed canonical body: `b` its text, `k` the signer's key, `s` the signature (hex)."""

    b: str
    k: str
    s: str


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode `body` canonically (a strict subset of RFC 8785).

    Raises:
        Malformed: A key or value lies outside the subset; nothing was encoded.
    """
    if not isinstance(body, dict):
        raise Malformed("cj_top")
    _check(body, 0)
    return _encode_sorted(body)


def encode_fields(body: Body, fields: FieldSet) -> bytes:
    """`check_fields` and `encode` at one go."""
    if fields.admit(body):
        return _encode_sorted(body)
    check_fields(body, fields.required, fields.optional)
    return encode(body)


def decode_fields(raw: bytes, fields: FieldSet, max_bytes: int) -> Body | None:
    """`decode` and `check_fields` at one go; None where one of them would raise."""
    try:
        value = _decode_any(raw) if len(raw) <= max_bytes else None
        if isinstance(value, dict) and fields.admit(value) and _encode_sorted(value) == raw:
            return value
    except (ValueError, RecursionError):
        pass
    return None


def decode(raw: bytes, max_bytes: int = MAX_STATEMENT_BYTES) -> Body:
    """Decode `raw` if, and only if, it is the canonical encoding of its value, or raise `Malformed`."""
    if len(raw) > max_bytes:
        raise Malformed("cj_len")
    try:
        value: Body = _decode_any(raw)
        if encode(value) == raw:
            return value
    except (ValueError, RecursionError, Malformed):
        pass
    return _decode_slowly(raw)


def check_fields(
    body: Mapping[str, Any], required: Mapping[str, FieldType], optional: Mapping[str, FieldType] | None = None
) -> None:
    """Require the exact field set and types: a missing or unknown field raises `Malformed`."""
    for name in required:
        if name not in body:
            raise Malformed("field", f"{name} is missing")
    for name, value in body.items():
        kind = required.get(name)
        if kind is None and (optional is None or (kind := optional.get(name)) is None):
            raise Malformed("field", f"{name} is unknown")
        if kind == "int":
            if value.__class__ is int and value >= 0:
                continue
        elif kind.__class__ is str and value.__class__ is str and _FORMS[kind](value) is not None:
            continue
        if not _is(value, kind):
            raise Malformed("field_type", name)


def labelled(context: str, body: bytes) -> bytes:
    """The bytes that are really signed or hashed: prefix ‖ context ‖ 0x00 ‖ body."""
    return PREFIX + context.encode() + b"\0" + body


def digest(context: str, body: bytes) -> Digest:
    """SHA-256 of `body` under its domain label, 64 hex digits."""
    return Digest(primitives.sha256(labelled(context, body)).hex())


def derive(key: bytes, label: str, context: bytes = b"") -> bytes:
    """Derive 32 bytes from `key`: HMAC-SHA256 over the label `kdf/LABEL` and `context`."""
    return primitives.hmac_sha256(key, labelled("kdf/" + label, context))


def sign_bytes(key: SigningKey, context: str, body: bytes) -> str:
    """Sign `body` under `context`; returns 128 hex digits."""
    if context not in CONTEXTS:
        raise AssertionError(f"unknown signature context {context!r}")
    return primitives.sign(key.secret, labelled(context, body)).hex()


def verify_bytes(public: str, context: str, body: bytes, signature: str) -> None:
    """Check `signature` (128 hex digits) of `public` over `body`, or raise `BadSignature`."""
    if not _SIGNATURE.match(signature):
        raise BadSignature("sig_form")
    primitives.verify(public, labelled(context, body), bytes.fromhex(signature))


def sign_statement(body: Mapping[str, Any], context: str, key: SigningKey) -> Statement:
    """Encode and sign `body` as `key`."""
    raw = encode(body)
    return Statement(raw.decode(), key.public, sign_bytes(key, context, raw))


def open_statement(statement: Statement, context: str, signer: str | None = None) -> Body:
    """Verify a statement and return its body.

    Args:
        signer: The key that must have signed. None accepts the key that the statement names; the
            caller then compares `statement.k` with a field of the body or with the roster.

    Raises:
        Malformed: It names another signer, or is not canonical.
        BadSignature: The signature does not match.
    """
    if signer is not None and statement.k != signer:
        raise Malformed("stmt", "signed by another key")
    raw = text_bytes(statement.b)
    verify_bytes(statement.k, context, raw, statement.s)
    return decode(raw)


def statement_digest(statement: Statement, context: str) -> Digest:
    """Hash that names a statement: over its body only, so it is the same for every copy."""
    return digest(context, text_bytes(statement.b))


def text_bytes(text: str) -> bytes:
    """The bytes of a statement's text, or `Malformed`: a character outside ASCII has no place in it."""
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise Malformed("cj_str") from error


def to_base64url(raw: bytes) -> str:
    """Unpadded base64url."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL, b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decode unpadded base64url; any other spelling of the same bytes raises `Malformed`."""
    rest = len(text) % 4
    try:
        spelled = text.encode("ascii").translate(_FROM_URL)
        raw = binascii.a2b_base64(spelled + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise Malformed("b64") from error
    if rest and binascii.b2a_base64(raw[1 - rest :], newline=False)[:rest] != spelled[-rest:]:
        raise Malformed("b64", "bits after the last byte")
    return raw


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Malformed("cj_depth")
    if isinstance(value, str):
        if not _STRING.match(value):
            raise Malformed("cj_str")
    elif value is True or value is False:
        return
    elif isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise Malformed("cj_int")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not _KEY.match(key):
                raise Malformed("cj_key")
            _check(item, depth + 1)
    else:
        raise Malformed("cj_type")


def _is_canonical(value: Any) -> bool:
    try:
        _check(value, 0)
    except Malformed:
        return False
    return True


def _is_text(kind: FieldType) -> bool:
    return kind is str or (isinstance(kind, str) and kind != "int")


def _text_form(kind: FieldType) -> Callable[[str], object]:
    return _FORMS[kind] if isinstance(kind, str) else _STRING.match


def _choices(kind: FieldType) -> frozenset[tuple[type, Any]]:
    return frozenset((type(value), value) for value in kind) if isinstance(kind, tuple) else frozenset()


def _is(value: Any, kind: FieldType) -> bool:
    if isinstance(kind, str):
        if kind == "int":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return isinstance(value, str) and _FORMS[kind](value) is not None
    if isinstance(kind, tuple):
        return any(value == allowed and type(value) is type(allowed) for allowed in kind)
    return isinstance(value, kind)


def _decode_slowly(raw: bytes) -> Body:
    """Decode what is not canonical as far as it goes, to say what is wrong with it."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique, parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Malformed("cj_syntax") from error
    if encode(value) != raw:
        raise Malformed("cj_noncanon")
    return value  # type: ignore[no-any-return]


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    items = list(pairs)
    value = dict(items)
    if len(value) != len(items):
        raise Malformed("cj_dup")
    return value


def _no_number(_: str) -> NoReturn:
    raise Malformed("cj_type", "numbers are integers")
