"""Bodies of the protocol's own messages: `cm/receipt`, `cm/nack`, `cm/profile` (docs/spec/delivery.md §4 to §6).

Those of channels are in `channel_contents`.

Receipts and nacks are canonical JSON. A profile holds names in any script, so it is plain JSON, checked by length
and by character; it is never signed over again, only carried inside a signed message.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from claudemesh.crypto import statements
from claudemesh.errors import Malformed, UsageError
from claudemesh.protocol import limits
from claudemesh.protocol.delivery import Stage
from claudemesh.protocol.ignorable import IGNORABLE
from claudemesh.types import Digest, MessageId, UnixMillis

TEXT: Final = "text/plain"
RECEIPT: Final = "cm/receipt"
NACK: Final = "cm/nack"
PROFILE: Final = "cm/profile"

MAX_NAME_CHARACTERS: Final = 40
MAX_PROFILE_BYTES: Final = 16_384
MAX_PROFILE_SESSIONS: Final = 64
MAX_TAGS: Final = 16
MAX_ABOUT_CHARACTERS: Final = 120
REACHES: Final = ("wakeable", "tool", "turn", "asked")
"""How an agent's session is reached: it wakes; at its next tool; at the end of its turn; only when it asks."""
RECEIPT_STAGES: Final = (
    Stage.DELIVERED,
    Stage.HELD,
    Stage.OFFERED,
    Stage.READ,
    Stage.REFUSED,
    Stage.EXPIRED,
)
"""What a recipient states by receipt; `replied` is stated by the reply itself."""

_REFUSED: Final = frozenset("./#@:,*\\\"'`<>|&;$!?(){}[]") | IGNORABLE
_RECEIPT_FIELDS: Final[dict[str, Any]] = {"v": (1,), "r": list}
_RECEIPT_ROW: Final[dict[str, Any]] = {"id": "hex16", "st": tuple(str(stage) for stage in RECEIPT_STAGES), "at": "int"}
_RECEIPT_OPTIONAL: Final[dict[str, Any]] = {"note": str}
_NACK_FIELDS: Final[dict[str, Any]] = {"v": (1,), "id": "hex16", "code": ("stale_key", "no_epoch_key")}
_NACK_OPTIONAL: Final[dict[str, Any]] = {"ep": "hex32"}
_TAG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}=[^\s,=]{1,64}\Z")


class Receipt(NamedTuple):
    """The recipient's word that a message reached a stage; `note` names an adapter or a reason."""

    message_id: MessageId
    stage: Stage
    at: UnixMillis
    note: str = ""


class Nack(NamedTuple):
    """The recipient could not open something: a message is to be sealed again, or an epoch's secret handed over."""

    message_id: MessageId
    """For `no_epoch_key`, the first half of the epoch's id."""
    code: str
    epoch: Digest | None = None
    """With `no_epoch_key`, and only then."""


class SessionLabel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session, what its peer calls it, and the tags by which it is found."""

    sess: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
    tags: Annotated[list[str], msgspec.Meta(max_length=MAX_TAGS)] = []
    reach: Annotated[str, msgspec.Meta(max_length=32)] = ""
    """One of `REACHES`; empty, or a word of a newer version: unknown."""
    about: Annotated[str, msgspec.Meta(max_length=MAX_ABOUT_CHARACTERS)] = ""
    """What the agent works at, in its own words."""


class Profile(msgspec.Struct, frozen=True):
    """What a peer calls its user, itself and its sessions. A suggestion, never authority."""

    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
    device: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
    sessions: Annotated[list[SessionLabel], msgspec.Meta(max_length=MAX_PROFILE_SESSIONS)] = []
    v: int = 1


_profile_decoder = msgspec.json.Decoder(Profile)


def write_receipts(receipts: Sequence[Receipt]) -> bytes:
    """Body of a `cm/receipt` with 1 to 64 receipts."""
    rows = []
    for receipt in receipts[: limits.MAX_IDS_PER_FRAME]:
        row: dict[str, Any] = {"id": receipt.message_id, "st": str(receipt.stage), "at": receipt.at}
        if receipt.note:
            row["note"] = receipt.note
        rows.append(row)
    return statements.encode({"v": 1, "r": rows})


def read_receipts(body: bytes) -> list[Receipt]:
    """Read a `cm/receipt`, or raise `Malformed`."""
    value = statements.decode(body)
    statements.check_fields(value, _RECEIPT_FIELDS)
    if not 1 <= len(value["r"]) <= limits.MAX_IDS_PER_FRAME:
        raise Malformed("field_type", "r")
    receipts = []
    for row in value["r"]:
        if not isinstance(row, dict):
            raise Malformed("field_type", "r")
        statements.check_fields(row, _RECEIPT_ROW, _RECEIPT_OPTIONAL)
        receipts.append(Receipt(row["id"], Stage(row["st"]), row["at"], row.get("note", "")))
    return receipts


def write_nack(nack: Nack) -> bytes:
    """Body of a `cm/nack`."""
    epoch = {} if nack.epoch is None else {"ep": nack.epoch}
    return statements.encode({"v": 1, "id": nack.message_id, "code": nack.code, **epoch})


def read_nack(body: bytes) -> Nack:
    """Read a `cm/nack`, or raise `Malformed`."""
    value = statements.decode(body)
    statements.check_fields(value, _NACK_FIELDS, _NACK_OPTIONAL)
    if (value["code"] == "no_epoch_key") != ("ep" in value):
        raise Malformed("field", "ep")
    return Nack(value["id"], value["code"], value.get("ep"))


def write_profile(profile: Profile) -> bytes:
    """Body of a `cm/profile`."""
    return msgspec.json.encode(profile)


def read_profile(body: bytes) -> Profile:
    """Read a `cm/profile`, or raise `Malformed`: no name may pass for an address or hide characters."""
    if len(body) > MAX_PROFILE_BYTES:
        raise Malformed("too_large", "profile")
    try:
        profile = _profile_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed("field_type", "profile") from error
    labels = [session.label for session in profile.sessions]
    for name in (profile.name, profile.device, *labels):
        if name and not is_name(name):
            raise Malformed("field_type", "a name of a profile")
    if not all(is_tag(tag) for session in profile.sessions for tag in session.tags):
        raise Malformed("field_type", "a tag of a profile")
    if not all(session.about.isprintable() for session in profile.sessions):
        raise Malformed("field_type", "a line about a session")
    return profile


def is_name(name: str) -> bool:
    """Whether a text may be a name: 1 to 40 visible characters, composed, none of them a separator of addresses."""
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or unicodedata.normalize("NFC", name) != name:
        return False
    return all(one.isprintable() and not one.isspace() and one not in _REFUSED for one in name)


def is_tag(tag: str) -> bool:
    """Whether a text may be a tag: `key=value`, the key of 1 to 32 plain characters, the value of 1 to 64 visible."""
    return _TAG.match(tag) is not None and tag.isprintable() and unicodedata.normalize("NFC", tag) == tag


def require_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as a person typed them, each once; raises `UsageError` when one cannot be one."""
    composed = tuple(dict.fromkeys(unicodedata.normalize("NFC", tag.strip()) for tag in tags))
    if len(composed) > MAX_TAGS or not all(is_tag(tag) for tag in composed):
        raise UsageError("usage", f"a session has up to {MAX_TAGS} tags of the form key=value")
    return composed


def require_name(name: str, what: str) -> str:
    """A name as a person typed it, composed; raises `UsageError` when it cannot be one."""
    composed = unicodedata.normalize("NFC", name.strip())
    if not is_name(composed):
        raise UsageError("usage", f"{what} has 1 to 40 visible characters and no space or any of . / # @ :")
    return composed


def require_about(text: str) -> str:
    """A line about a session as it was written, composed; raises `UsageError` when it is not one."""
    composed = unicodedata.normalize("NFC", text.strip())
    if len(composed) > MAX_ABOUT_CHARACTERS or not composed.isprintable():
        raise UsageError("usage", f"a session is described in one line of at most {MAX_ABOUT_CHARACTERS} characters")
    return composed


def as_label(text: str) -> str:
    """The nearest name to a text such as a directory's base name: what may not stand in a name becomes a dash."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(character if is_name(character) else "-" for character in composed).strip("-")
    return kept[:MAX_NAME_CHARACTERS].strip("-")
