"""`claudemesh hook HOST`: what a host starts at an event; asks the daemon what to show, writes it, and is gone.

A hook may cost a session 60 ms and nothing else: whatever goes wrong, it says nothing and ends well, so that the
user's own prompt is never held up. The daemon is told that a text was written only after it was: the sender's receipt
rests on that (docs/hosts.md §2). Neither click nor asyncio is imported here.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import LENGTH, Client, check_length, decode_frame
from claudemesh.errors import LocalError

OPERATION: Final = "hook"
ANSWER_WITHIN_S: Final = 4.0
WRITTEN: Final = b"\x06"
"""Tells the daemon that the text was written and flushed."""
NOT_WRITTEN: Final = b"\x15"
"""Tells it that the text was surely not."""
KEPT_ENVIRONMENT: Final = (
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_PID",
    "CLAUDEMESH_LABEL",
    "CLAUDEMESH_TAGS",
    "CLAUDEMESH_MESH",
    "PATH",
    "HOME",
    "CODEX_HOME",
)
"""Of the host's process: how it runs, and what `claudemesh run` calls its session, how to find its program."""
KEPT_FIELDS: Final = (
    "session_id",
    "hook_event_name",
    "cwd",
    "transcript_path",
    "agent_id",
    "source",
    "stop_hook_active",
)


def run_hook(host: str, event: bytes, environment: Mapping[str, str]) -> int:
    """Answer one event of a host on standard output or standard error.

    Args:
        event: The JSON object that the host wrote to our standard input.
        environment: The process's; two variables of it are read.

    Returns:
        The exit code that the host expects: 0, or 2 to wake an idle session of Claude Code.
    """
    try:
        return _ask(_question(host, event, environment))
    except Exception:  # noqa: BLE001 - a failing hook must not fail the user's turn; `claudemesh doctor` finds the cause
        return 0


def main(host: str) -> int:
    """Run the hook of this process; returns its exit code."""
    return run_hook(host, sys.stdin.buffer.read(), os.environ)


def _question(host: str, event: bytes, environment: Mapping[str, str]) -> dict[str, Any]:
    found = json.loads(event)
    kept = {name: found[name] for name in KEPT_FIELDS if isinstance(found.get(name), str | bool)}
    known = {name: environment.get(name, "") for name in KEPT_ENVIRONMENT}
    return {"host": host, "event": kept, "environment": known, "parent": os.getppid()}


def _ask(question: dict[str, Any]) -> int:
    with _client(question) as client:
        connection = client.attach(OPERATION, question)
        length = check_length(LENGTH.unpack(_exactly(connection, LENGTH.size))[0])
        answer = decode_frame(_exactly(connection, length))
        sys.stdout.write(str(answer.get("stdout", "")))
        sys.stderr.write(str(answer.get("stderr", "")))
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(WRITTEN)
        return int(answer.get("exit_code", 0))


def _client(question: dict[str, Any]) -> Client:
    """A connection; only the beginning of a session starts the daemon, which then serves all that follow."""
    config = ConfigDir.of_environment()
    try:
        return Client(config.socket(), ANSWER_WITHIN_S)
    except LocalError:
        if question["event"].get("hook_event_name") != "SessionStart":
            raise
    from claudemesh.daemon.launch import connect

    connect(config).close()
    return Client(config.socket(), ANSWER_WITHIN_S)


def _exactly(connection: Any, length: int) -> bytes:
    found = b""
    while len(found) < length:
        part = connection.recv(length - len(found))
        if not part:
            raise LocalError("daemon_unreachable", "it stopped before it answered")
        found += part
    return found
