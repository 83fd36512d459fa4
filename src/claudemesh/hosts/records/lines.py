"""Lines of JSON in a file that may be large, and the sign by which a message of ours is found in one."""

import json
import mmap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from claudemesh.types import UnixMillis

Finding = Literal["absent", "abandoned", "present", "answered"]
"""Of a message in a record, from the least to the most.

`absent`: it is not there. `abandoned`: it was, and its user has taken that part of the conversation back before a model
answered; it will never be sent. `present`: it is there, and no model has answered since. `answered`: one has.
"""
RANKS: Final[dict[Finding, int]] = {"absent": 0, "abandoned": 1, "present": 2, "answered": 3}

_LAST_BYTES: Final = 1 << 16


class Rest(NamedTuple):
    """A session waits for its user."""

    since: UnixMillis
    is_final: bool = False
    """Whether its host begins no turn by itself before its user does."""


class Line(NamedTuple):
    """One line that is a JSON object."""

    begins: int
    entry: dict[str, Any]


def lines(content: mmap.mmap, begins: int = 0) -> Iterator[Line]:
    """Every line from one on that is a JSON object; a kill may have cut the last one off."""
    while 0 <= begins < len(content):
        ends = content.find(b"\n", begins)
        ends = ends if ends >= 0 else len(content)
        entry = _object(content[begins:ends])
        if entry is not None:
            yield Line(begins, entry)
        begins = ends + 1


def lines_before(content: mmap.mmap, begins: int) -> Iterator[Line]:
    """The same backwards, from the line before one on."""
    while begins > 0:
        ends = begins - 1
        begins = content.rfind(b"\n", 0, ends) + 1
        entry = _object(content[begins:ends])
        if entry is not None:
            yield Line(begins, entry)


def last_lines(record: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects at the end of a file, the last one first; of a large file its last 64 KiB alone."""
    try:
        with record.open("rb") as file:
            begins = max(0, file.seek(0, 2) - _LAST_BYTES)
            file.seek(begins)
            content = file.read(_LAST_BYTES)
    except OSError:
        return
    for line in reversed(content.split(b"\n")):
        entry = _object(line)
        if entry is not None:
            yield entry


def naming(content: mmap.mmap, message_id: str) -> Iterator[int]:
    """Where each line begins that names a message, in a block or in any other way."""
    place = content.find(message_id.encode())
    while place >= 0:
        yield content.rfind(b"\n", 0, place) + 1
        ends = content.find(b"\n", place)
        place = content.find(message_id.encode(), ends) if ends >= 0 else -1


def holds(found: Any, message_id: str) -> bool:
    """Whether a text inside a JSON value has a message's block; a line of a peer's body is none, whatever it says."""
    sign = f"--- message {message_id}"
    return any(
        line.endswith(sign) and not line.startswith("| ") for text in _texts(found) for line in text.splitlines()
    )


def is_since(entry: dict[str, Any], since: UnixMillis) -> bool:
    """Whether an entry was written at that time or later; one without a time counts."""
    at = time_of(entry)
    return at is None or at >= since


def time_of(entry: dict[str, Any]) -> UnixMillis | None:
    """When an entry was written; None where it does not say."""
    try:
        return UnixMillis(round(datetime.fromisoformat(str(entry["timestamp"])).timestamp() * 1_000))
    except (KeyError, ValueError):
        return None


def _texts(found: Any) -> Iterator[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, list | dict):
        for one in found.values() if isinstance(found, dict) else found:
            yield from _texts(one)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
