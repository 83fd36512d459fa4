"""What Claude Code notes of each of its running processes, in `sessions/PID.json` beside its records.

In a record nothing stands of a turn that was stopped before its model said anything; here it does.
"""

from pathlib import Path
from typing import Final

from claudemesh.daemon.config_dir import read_json
from claudemesh.hosts.records.lines import Rest
from claudemesh.types import UnixMillis

_IDLE: Final = frozenset({"idle", "shell"})
"""`shell`: a command runs in the background, and its user may write. `waiting` is for an answer within a turn."""


def find_rest(record: Path, session: str, process: int) -> Rest | None:
    """Whether the process waits for its user, if it has this session open."""
    above = record.parents
    if len(above) < 3:
        return None
    noted = read_json(above[2] / "sessions" / f"{process}.json")
    since = noted.get("statusUpdatedAt")
    if noted.get("sessionId") != session or noted.get("status") not in _IDLE or not isinstance(since, int):
        return None
    return Rest(UnixMillis(since))
