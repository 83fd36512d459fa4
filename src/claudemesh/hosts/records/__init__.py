"""What a host's own record says: whether a model has answered our messages, and whether a session is at rest.

A host keeps its conversations in files of JSON lines, for itself, to go on with them. After a kill, a failed request or
an interrupted turn nobody else knows what its model was sent. Each module reads what one host writes.
"""

import importlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from claudemesh.hosts.records.lines import Finding, Rest
from claudemesh.types import UnixMillis

__all__ = ["Finding", "Rest", "find_rest", "findings"]

_READERS: Final = {
    "claude-code": "claudemesh.hosts.records.claude_code",
    "codex": "claudemesh.hosts.records.codex",
    "gemini": "claudemesh.hosts.records.gemini",
}
_REST_READERS: Final = {
    "claude-code": "claudemesh.hosts.records.claude_processes",
    "codex": "claudemesh.hosts.records.codex",
}
"""Of hosts whose hooks do not tell of every end of a turn."""


def findings(host: str, record: Path, offered: Mapping[str, UnixMillis]) -> dict[str, Finding] | None:
    """What the record says of each message.

    Args:
        record: The file that the host named; of any size, it is read from the first of these messages on.
        offered: Since when each message may stand in it, by id: an older place is one of which was judged before.

    Returns:
        None when there is no such record, or none that we can read.
    """
    name = _READERS.get(host)
    if name is None:
        return None
    reader = importlib.import_module(name)
    try:
        with record.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {one: reader.find(content, one, since, record) for one, since in offered.items()}
    except (OSError, ValueError):
        return None


def find_rest(host: str, record: Path, session: str, process: int) -> Rest | None:
    """Whether a session waits for its user, by what the host has noted last.

    Args:
        record: The file that the host named.
        session: The host's own id of it.
        process: The host's; 0 when it is not known.

    Returns:
        None while it works, and where the host does not say.
    """
    name = _REST_READERS.get(host)
    if name is None:
        return None
    found: Rest | None = importlib.import_module(name).find_rest(record, session, process)
    return found
