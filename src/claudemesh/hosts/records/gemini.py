"""Gemini CLI's record: entries in order, some replaced under their id, and the list as a whole where it was cut.

A turn that its user interrupts, or whose request fails, ends with the same event as any other. What was interrupted
is taken out of the conversation, and what was added to it is sent to no model.
"""

import mmap
from pathlib import Path
from typing import Any

from claudemesh.hosts.records.lines import Finding, holds, is_since, last_lines, lines
from claudemesh.types import UnixMillis


def find(content: mmap.mmap, message_id: str, since: UnixMillis, record: Path) -> Finding:
    """What the record says of a message: answered once an entry of the model's comes after it."""
    found: Finding = "absent"
    if content.find(message_id.encode()) < 0:
        return found
    known, later = set[str](), set[str]()
    for _, entry in lines(content):
        later.add(str(entry.get("id")))
        whole = entry.get("$set")
        if isinstance(whole, dict) and isinstance(whole.get("messages"), list):
            is_there = any(_is_said(one, message_id, since) for one in whole["messages"])
            found = "present" if is_there else "abandoned" if found == "present" else found
        elif "$rewindTo" in entry:  # that entry and what follows it are taken out
            found = "abandoned" if found == "present" and entry["$rewindTo"] not in later else found
        elif _is_said(entry, message_id, since):
            found = "present"
            later = set()
        elif found == "present" and entry.get("type") == "gemini" and entry.get("id") not in known:
            return "answered"
        known.add(str(entry.get("id")))
    return found


def was_stopped(record: Path) -> bool:
    """Whether its user stopped the last turn: a note that says so ends it, or the list that is cut because of it."""
    for entry in last_lines(record):
        whole = entry.get("$set")
        if isinstance(whole, dict) and "messages" not in whole:
            continue
        return isinstance(whole, dict) or entry.get("type") == "info"
    return False


def _is_said(entry: Any, message_id: str, since: UnixMillis) -> bool:
    is_user = isinstance(entry, dict) and entry.get("type") == "user"
    return is_user and is_since(entry, since) and holds(entry.get("content"), message_id)
