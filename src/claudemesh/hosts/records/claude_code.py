"""Claude Code's record: entries that name the one they follow, a tree whose newest leaf is the conversation.

A user who interrupts a turn before the model has said anything gets the prompt back; the conversation then goes on from
before it, and everything that was added to that prompt is sent to no model. A request that fails leaves an answer
in the model's place that no model wrote.
"""

import mmap
from pathlib import Path
from typing import Any, Final

from claudemesh.hosts.records.lines import RANKS, Finding, Line, holds, is_since, lines, lines_before, naming
from claudemesh.types import UnixMillis

_SAID: Final = frozenset({"user", "attachment"})
_NO_MODEL: Final = "<synthetic>"


def find(content: mmap.mmap, message_id: str, since: UnixMillis, record: Path) -> Finding:
    """What the record says of a message; of several places where it stands, the one that says most."""
    found: Finding = "absent"
    for begins in naming(content, message_id):
        line = next(lines(content, begins), None)
        if line is None or line.begins != begins or not _is_said(line.entry, message_id, since):
            continue
        found = max(found, _became(content, line), key=RANKS.__getitem__)
    return found


def _became(content: mmap.mmap, block: Line) -> Finding:
    """Whether a model answered in the conversation in which a block stands, or only in one that goes on without it."""
    found: Finding = "present"
    prompt = _prompt_of(content, block)
    following, answers_before = {_text(prompt.entry, "uuid")}, set[str]()
    for begins, entry in lines(content, prompt.begins):
        before = _text(entry, "parentUuid") or _text(entry, "logicalParentUuid")
        follows = before != "" and before in following
        if follows:
            following.add(_text(entry, "uuid"))
        if not _is_answer(entry):
            continue
        answer = _text(entry["message"], "id")  # of several tools that it calls, one may end before the next is noted
        if begins < block.begins:
            answers_before.add(answer)
        elif not follows:
            found = "abandoned"
        elif answer not in answers_before:
            return "answered"
    return found


def _prompt_of(content: mmap.mmap, block: Line) -> Line:
    """The prompt that a block was added to, or itself: what is taken back is taken back as a whole prompt."""
    line = block
    for other in lines_before(content, block.begins):
        before = _text(line.entry, "parentUuid")
        if _is_prompt(line.entry) or not before:
            break
        if _text(other.entry, "uuid") == before:
            line = other
    return line


def _is_prompt(entry: dict[str, Any]) -> bool:
    message = entry.get("message")
    said = message.get("content") if isinstance(message, dict) else None
    is_result = isinstance(said, list) and any(isinstance(one, dict) and "tool_use_id" in one for one in said)
    return entry.get("type") == "user" and not is_result


def _is_said(entry: dict[str, Any], message_id: str, since: UnixMillis) -> bool:
    """Whether a line has the block as part of the conversation, and not in a note of a queue, a request, a hook."""
    attachment = entry.get("attachment")
    kind = attachment.get("type") if isinstance(attachment, dict) else ""
    is_said = entry.get("type") in _SAID and kind != "hook_success" and is_since(entry, since)
    return is_said and holds(entry, message_id)


def _is_answer(entry: dict[str, Any]) -> bool:
    """Whether a model wrote it, in this conversation and not in a subagent's."""
    message = entry.get("message")
    if entry.get("type") != "assistant" or not isinstance(message, dict) or entry.get("isSidechain") is True:
        return False
    return entry.get("isApiErrorMessage") is not True and message.get("model") != _NO_MODEL


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""
