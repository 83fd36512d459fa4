"""What a host's own record of a conversation says of a message: whether the model has it before it.

After a kill nobody else knows. A text that stands in the record is sent to the model with its next request; one that
does not stand there was never shown, or was lost with the process, and may be shown again.
"""

import mmap
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Finding = Literal["absent", "present", "answered"]
_ANSWER = b'"role":"assistant"'


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
    last = None
    for last in block.finditer(content):  # noqa: B007 - the last one counts: a session that was resumed has copies
        pass
    if last is None:
        return "absent"
    return "answered" if content.find(_ANSWER, last.end()) >= 0 else "present"
