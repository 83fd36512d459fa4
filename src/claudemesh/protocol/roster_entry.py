"""Roster entries as bytes: their wire form, their fields and their hash (docs/spec/roster.md §1, §2).

An entry is one canonical body and the signatures over it. Its hash covers the same bytes as its
signatures, so an entry has one name whoever forwards it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Body, FieldType
from claudemesh.errors import Malformed, RosterRefused
from claudemesh.types import Digest

MAX_SIGNATURES: Final = 3
ROLES: Final = ("member", "admin", "owner")
CHANNEL_KINDS: Final = ("open", "private", "group")
REVOKE_REASONS: Final = ("left", "lost", "stolen", "removed")

_BROKER_URL = re.compile(r"(wss?|unix)://[!-~]{1,400}\Z")
_COMMON: Final[dict[str, FieldType]] = {
    "v": (1,),
    "mesh": "hex32",
    "seq": "int",
    "prev": "hex32",
    "op": str,
    "by": "hex32",
    "at": "int",
}
_KEYS: Final[dict[str, FieldType]] = {"sign": "hex32", "box": "hex32", "user": "hex32"}
REQUIRED_FIELDS: Final[dict[str, dict[str, FieldType]]] = {
    "genesis": {"m": dict, "bk": "hex32", "nonce": "hex16"},
    "invite": {"inv": "hex32", "role": ROLES, "uses": "int", "exp": "int"},
    "uninvite": {"inv": "hex32"},
    "admit": {"m": dict},
    "revoke": {"who": "hex32", "why": REVOKE_REASONS},
    "rekey": {"box": "hex32", "cs": "int"},
    "role": {"who": "hex32", "role": ROLES},
    "recover": {"m": dict},
    "chan": {"chan": "hex16", "kind": CHANNEL_KINDS},
    "chan_add": {"chan": "hex16", "who": "hex32"},
    "chan_del": {"chan": "hex16", "who": "hex32"},
    "broker": {"bk": "hex32"},
}
"""What each operation carries besides the common fields."""
OPTIONAL_FIELDS: Final[dict[str, dict[str, FieldType]]] = {
    "genesis": {"rec": "hex32"},
    "invite": {"user": "hex32", "dev": "int"},
    "broker": {"url": str},
}


class Entry(msgspec.Struct, frozen=True):
    """One entry of the roster: `b` its canonical body, `s` signatures (hex) by public key (hex)."""

    b: str
    s: dict[str, str]


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry whose every signature is valid; whether they are the required ones, only the roster's state tells."""

    entry: Entry


def sign_entry(body: Mapping[str, Any], *signers: SigningKey) -> Entry:
    """Encode `body` and sign it with each of `signers`.

    Raises:
        Malformed: The body cannot be encoded canonically; nothing was signed.
    """
    raw = statements.encode(body)
    return Entry(raw.decode(), {key.public: statements.sign_bytes(key, "roster", raw) for key in signers})


def entry_digest(entry: Entry) -> Digest:
    """The entry's hash: of its body only, so every copy has the same."""
    return statements.digest("roster", statements.text_bytes(entry.b))


def verify_signatures(entry: Entry) -> SignedEntry:
    """Verify each signature of an entry by the key that it names: the costly part of a check, which needs no state.

    Raises:
        RosterRefused: `entry_form`; it has no or too many signatures, and none was verified.
        Malformed: The body is not ASCII.
        BadSignature: One does not match.
    """
    _require_signatures(entry)
    raw = statements.text_bytes(entry.b)
    for key, signature in entry.s.items():
        statements.verify_bytes(key, "roster", raw, signature)
    return SignedEntry(entry)


def read_entry(entry: Entry) -> Body:
    """Check the form and the exact fields of an entry; neither its signatures nor any rule.

    Raises:
        RosterRefused: `entry_form` it has no or too many signatures; `unknown_op`.
        Malformed: The body is not canonical or has another field set.
    """
    _require_signatures(entry)
    body = statements.decode(statements.text_bytes(entry.b))
    op = body.get("op")
    if not isinstance(op, str) or op not in REQUIRED_FIELDS:
        raise RosterRefused("unknown_op", str(op)[:24])
    statements.check_fields(body, _COMMON | REQUIRED_FIELDS[op], OPTIONAL_FIELDS.get(op))
    if "m" in body:
        statements.check_fields(body["m"], _KEYS)
    if "url" in body and not _BROKER_URL.match(body["url"]):
        raise Malformed("field_type", "url")
    return body


def _require_signatures(entry: Entry) -> None:
    if not 1 <= len(entry.s) <= MAX_SIGNATURES:
        raise RosterRefused("entry_form", f"{len(entry.s)} signatures")
