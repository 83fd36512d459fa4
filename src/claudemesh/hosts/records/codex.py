"""Codex's record, its rollout: what went to the model and came from it, in order, and how each turn ended.

A user who takes a conversation back to an earlier point begins another rollout, which names the place in the former
one up to which it goes on with that.
"""

import mmap
from pathlib import Path
from typing import Any, Final

from claudemesh.hosts.records.lines import Finding, Rest, holds, is_since, last_lines, lines, naming, time_of
from claudemesh.types import UnixMillis

_DIRECTORIES: Final = 4
"""A record is in one for its day, in one for the month, the year, and all."""
_STOPPED: Final = "turn_aborted"
_TURNS: Final = frozenset({"task_started", "task_complete", _STOPPED})


def find(content: mmap.mmap, message_id: str, since: UnixMillis, record: Path) -> Finding:
    """What the record says of a message, or else the one that it goes on with."""
    place = _place(content, message_id, since)
    if place >= 0:
        return "answered" if _is_answered(content, place) else "present"
    base = _base(content, record)
    if base is None:
        return "absent"
    former, ends = base
    try:
        with former.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as before:
            place = _place(before, message_id, since)
            if place < 0 or _is_answered(before, place):
                return "absent" if place < 0 else "answered"
    except (OSError, ValueError):
        return "absent"
    if place >= ends:
        return "abandoned"
    return "answered" if _is_answered(content, 0) else "present"


def find_rest(record: Path, session: str, process: int) -> Rest | None:
    """Whether the last that it has of turns is the end of one; after one that was stopped its queue waits, too."""
    for entry in last_lines(record):
        payload = entry.get("payload")
        kind = payload.get("type") if isinstance(payload, dict) else ""
        if entry.get("type") == "event_msg" and kind in _TURNS:
            at = time_of(entry)
            return Rest(at, kind == _STOPPED) if at is not None and kind != "task_started" else None
    return None


def _place(content: mmap.mmap, message_id: str, since: UnixMillis) -> int:
    """Where the line begins that gave a message to the model; -1 where there is none."""
    for begins, entry in lines(content, next(naming(content, message_id), -1)):
        payload = entry.get("payload")
        is_item = entry.get("type") == "response_item" and isinstance(payload, dict) and is_since(entry, since)
        if is_item and _is_input(payload) and holds(payload, message_id):
            return begins
    return -1


def _is_answered(content: mmap.mmap, begins: int) -> bool:
    """Whether the turn in which a place stands, or a later one, has an answer.

    An answer within the turn shows nothing: of several tools that it calls, one may end before the next is noted.
    """
    payloads = (entry.get("payload") for _, entry in lines(content, begins))
    return any(isinstance(payload, dict) and _ends_a_turn(payload) for payload in payloads)


def _base(content: mmap.mmap, record: Path) -> tuple[Path, int] | None:
    """The record that this one goes on with, and up to which byte; None where there is none, or doubt which it is."""
    first = next(lines(content), None)
    payload = first.entry.get("payload") if first is not None else None
    base = payload.get("history_base") if isinstance(payload, dict) else None
    if not isinstance(base, dict) or len(record.parents) < _DIRECTORIES:
        return None
    thread, ends = base.get("thread_id"), base.get("end_byte_offset")
    if not isinstance(thread, str) or not isinstance(ends, int):
        return None
    days = record.parents[_DIRECTORIES - 1].glob("*/*/*/rollout-*.jsonl")
    former = [one for one in days if thread in one.name and one != record]
    return (former[0], ends) if len(former) == 1 else None


def _is_input(payload: Any) -> bool:
    return payload.get("role") in ("user", "developer") or str(payload.get("type", "")).endswith("_output")


def _ends_a_turn(payload: dict[str, Any]) -> bool:
    """A turn that failed, or that made the conversation shorter, ends without a message of the model."""
    return payload.get("type") == "task_complete" and bool(payload.get("last_agent_message"))
