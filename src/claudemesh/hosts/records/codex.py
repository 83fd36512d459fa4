"""Codex's record, its rollout: what went to the model and came from it, in order, and how each turn ended."""

import mmap
from pathlib import Path
from typing import Any, Final

from claudemesh.hosts.records.lines import Finding, Rest, holds, is_since, last_lines, lines, naming, time_of
from claudemesh.types import UnixMillis

_STOPPED: Final = "turn_aborted"
_TURNS: Final = frozenset({"task_started", "task_complete", _STOPPED})


def find(content: mmap.mmap, message_id: str, since: UnixMillis) -> Finding:
    """What the record says of a message: answered once the turn in which it stands, or a later one, has an answer.

    An answer within the turn shows nothing: of several tools that it calls, one may end before the next is noted.
    """
    found: Finding = "absent"
    for _, entry in lines(content, next(naming(content, message_id), -1)):
        payload = entry.get("payload")
        if not isinstance(payload, dict):
            continue
        if found == "absent" and entry.get("type") == "response_item" and is_since(entry, since):
            found = "present" if _is_input(payload) and holds(payload, message_id) else "absent"
        elif found == "present" and _ends_a_turn(payload):
            return "answered"
    return found


def find_rest(record: Path, session: str, process: int) -> Rest | None:
    """Whether the last that it has of turns is the end of one; after one that was stopped its queue waits, too."""
    for entry in last_lines(record):
        payload = entry.get("payload")
        kind = payload.get("type") if isinstance(payload, dict) else ""
        if entry.get("type") == "event_msg" and kind in _TURNS:
            at = time_of(entry)
            return Rest(at, kind == _STOPPED) if at is not None and kind != "task_started" else None
    return None


def _is_input(payload: dict[str, Any]) -> bool:
    return payload.get("role") in ("user", "developer") or str(payload.get("type", "")).endswith("_output")


def _ends_a_turn(payload: dict[str, Any]) -> bool:
    """A turn that failed, or that made the conversation shorter, ends without a message of the model."""
    return payload.get("type") == "task_complete" and bool(payload.get("last_agent_message"))
