"""Structured logs: one JSON line per event (docs/spec/broker.md §7).

A line holds an event's name, counts, closed codes and fingerprints of eight digits: never a payload, a
name, a link, a key, an address, or the text of an exception, which could quote one of them.
"""

import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Final

FINGERPRINT_LENGTH: Final = 8

Value = int | float | bool | str | list[str] | None


class Log:
    """Writes events; `debug` to `error` as usual."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Value) -> None:
        """Something of use only to whoever looks for a defect."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Value) -> None:
        """Something an operator may want to know."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Value) -> None:
        """Something an operator should look at."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Value) -> None:
        """Something an operator has to act on."""
        self._logger.error(event, extra={"fields": fields})

    def failure(self, event: str, error: BaseException) -> None:
        """A defect: the exception's type and where it was raised, without its text."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        self.error(event, type=type(error).__name__, where=where)


def open_log(level: str, path: Path | None) -> Log:
    """Log to a file (created 0600, or appended to as it is), or to standard error."""
    logger = logging.Logger("claudemesh.broker", level.upper())
    if path is not None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handler = logging.StreamHandler(sys.stderr) if path is None else logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_JsonLines())
    logger.addHandler(handler)
    return Log(logger)


def fingerprint(key: str) -> str:
    """What a log may say of a key or of a mesh."""
    return key[:FINGERPRINT_LENGTH]


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields: dict[str, Value] = getattr(record, "fields", {})
        return json.dumps({"at": at, "level": record.levelname.lower(), "event": record.msg, **fields})
