"""What a host's own record of a conversation says of a message: whether the model has it before it.

After a kill nobody else knows. A text that stands in the record is sent to the model with its next request; one that
does not stand there was never shown, or was lost with the process, and may be shown again.
"""

import json
import mmap
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

Finding = Literal["absent", "present", "answered"]
_ANSWER: Final = b'"role":"assistant"'
_SAID: Final = frozenset({"user", "attachment"})


def findings(transcript: Path, message_ids: Iterable[str]) -> dict[str, Finding] | None:
    """What the record says of each message.

    Args:
        transcript: JSON lines, as Claude Code writes them; of any size, it is searched and not read.
        message_ids: As they stand in the first line of a message's block.

    Returns:
        `answered` when the model has written something after the block, `present` when not yet; None when there is
        no such record.
    """
    try:
        with transcript.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {one: _find(content, one) for one in message_ids}
    except (OSError, ValueError):
        return None


def _find(content: mmap.mmap, message_id: str) -> Finding:
    # A peer may write such a line in a body, where it stands behind `| `.
    block = re.compile(rb"(?<!\| )--- message " + re.escape(message_id.encode()) + rb"(?![0-9A-Za-z-])")
    found = [one.end() for one in block.finditer(content) if _is_said(_line(content, one.start()))]
    if not found:
        return "absent"
    # The first one counts: a conversation that goes on elsewhere begins with a copy of what was said.
    return "answered" if content.find(_ANSWER, found[0]) >= 0 else "present"


def _line(content: mmap.mmap, place: int) -> bytes:
    begin, end = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
    return content[begin : end if end >= 0 else len(content)]


def _is_said(line: bytes) -> bool:
    """Whether a line is part of the conversation, and not a note about it: of a queue, a request, a hook that ran."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False  # cut off by a kill
    attachment = entry.get("attachment")
    kind = attachment.get("type") if isinstance(attachment, dict) else ""
    return entry.get("type") in _SAID and kind != "hook_success"
