"""The daemon's log: JSON lines of event names, codes, counts and key fingerprints; nothing else can get in.

A record that one of our own modules did not write through `log_event` (a library's warning) keeps its place in the
code and loses its text, because that text may quote an address, a name or a payload.
"""

import json
import logging
import os
import re
import time
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

MAX_LOG_BYTES: Final = 1 << 20
LOG_FILES_KEPT: Final = 3
FINGERPRINT_DIGITS: Final = 8
FIELDS: Final = frozenset({"code", "count", "kind", "mesh", "ms", "op", "peer", "pid", "version", "where"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/<> -]{0,200}\Z")

_logger = logging.getLogger("claudemesh.daemon")


def log_event(event: str, *, level: int = logging.INFO, **fields: str | int) -> None:
    """Write one line.

    Args:
        event: A name from our code, never from outside.
        fields: Only those of `FIELDS`; keys and mesh ids are cut to their fingerprint.
    """
    _logger.log(level, event, extra={"claudemesh": fields})


def log_defect(op: str, error: BaseException) -> None:
    """Write where an unexpected error came from: its type and the lines of code, never its text."""
    log_event("defect", level=logging.ERROR, op=op, kind=type(error).__name__, where=where_of(error))


def where_of(error: BaseException) -> str:
    """The innermost lines of code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-6:]))


def open_log(path: Path) -> logging.Handler:
    """Send every record of this process to `path`, readable by its owner only, rotated at `MAX_LOG_BYTES`."""
    handler = _PrivateRotatingFile(path, maxBytes=MAX_LOG_BYTES, backupCount=LOG_FILES_KEPT - 1, encoding="utf-8")
    handler.setFormatter(JsonLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("claudemesh").setLevel(logging.INFO)
    return handler


class JsonLine(logging.Formatter):
    """One record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower()}
        fields = getattr(record, "claudemesh", None)
        if isinstance(fields, dict):
            line["event"] = str(record.msg)
            line.update({name: _plain(name, value) for name, value in fields.items() if name in FIELDS})
        else:
            line |= {"event": "library", "kind": record.name[:60], "where": f"{record.module}:{record.lineno}"}
        return json.dumps(line)


class _PrivateRotatingFile(RotatingFileHandler):
    def _open(self) -> Any:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


def _plain(name: str, value: object) -> str | int:
    if isinstance(value, int):
        return value
    text = str(value)[:FINGERPRINT_DIGITS] if name in ("mesh", "peer") else str(value)
    return text if _PLAIN.match(text) else "?"
