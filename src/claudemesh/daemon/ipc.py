"""The daemon's local protocol: frames, error objects, and the blocking client (docs/spec/ipc.md §2).

    frame    = u32be length ‖ JSON object, at most 4 MiB
    request  = {"v": 1, "version": client's version, "op": …, "args": {…}}
    answer   = ({"progress": {…}} | {"event": {…}})* ({"ok": {…}} | {"error": {…}} | {"part": text}* {"ok": null})

A command is a short-lived process, so that this module imports neither asyncio nor the cryptography.
"""

import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from claudemesh import __version__
from claudemesh.errors import ClaudemeshError, LocalError, Refused, Unreachable

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 4 << 20
CONNECT_TIMEOUT_S: Final = 5.0
LENGTH: Final = struct.Struct(">I")
_PLATFORM: Final[str] = sys.platform
_UNKNOWN: Final = ("internal", "interrupted", "daemon_unreachable", "storage")
"""Errors after which nobody knows; the last is a broker's, whose database may have ended in the middle of a commit."""

Object = dict[str, Any]
Progress = Callable[[Object], None]


class AnsweredError(Exception):
    """The daemon answered with an error; `error` is its object, docs/spec/ipc.md §3."""

    def __init__(self, error: Object) -> None:
        super().__init__(str(error.get("code")))
        self.error = error


class Client:
    """One connection to the daemon; requests follow one another on it.

    Raises:
        LocalError: `daemon_unreachable` when nobody answers on the socket, or not one of ours.
    """

    def __init__(self, path: Path, timeout_s: float | None = None) -> None:
        self._socket = _connect(path)
        self._socket.settimeout(timeout_s)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, op: str, args: Object, progress: Progress | None = None) -> Object:
        """Ask for one operation and wait for its answer.

        Raises:
            AnsweredError: The daemon refused; its object says what took effect.
            LocalError: `daemon_unreachable`; the connection ended before the answer.
        """
        steps = self.stream(op, args, progress)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            answer: Object = end.value
            return answer

    def stream(self, op: str, args: Object, progress: Progress | None = None) -> Generator[Object, None, Object]:
        """Ask for an operation that reports events: yields each, and returns the answer at the end."""
        request = {"v": VERSION, "version": __version__, "op": op, "args": args}
        self._write(encode_frame(request))
        parts: list[str] = []
        while True:
            frame = self._read()
            if "part" in frame:
                parts.append(frame["part"])
            if "ok" in frame:
                answer: Object = frame["ok"] if not parts else decode_frame("".join(parts).encode())
                return answer
            if "error" in frame:
                raise AnsweredError(frame["error"])
            if "event" in frame:
                yield frame["event"]
            elif "progress" in frame and progress is not None:
                progress(frame["progress"])

    def attach(self, op: str, args: Object) -> socket.socket:
        """Ask for an operation that takes over the connection: from its answer on, plain bytes go both ways.

        Returns:
            The connected socket, which is the caller's to close.

        Raises:
            AnsweredError: The daemon refused.
            LocalError: `daemon_unreachable`; the connection ended before the answer.
        """
        self._write(encode_frame({"v": VERSION, "version": __version__, "op": op, "args": args}))
        (length,) = LENGTH.unpack(self._receive(LENGTH.size))
        frame = decode_frame(self._receive(check_length(length)))
        if "error" in frame:
            raise AnsweredError(frame["error"])
        self._stream.close()
        return self._socket

    def wait_for_end(self, within_s: float) -> None:
        """Wait until the daemon closes the connection.

        Raises:
            LocalError: `daemon_unreachable`; it did not in time.
        """
        self._socket.settimeout(within_s)
        try:
            while self._socket.recv(4_096):
                pass
        except TimeoutError as error:
            raise LocalError("daemon_unreachable", "it did not stop in time") from error
        except OSError:
            return

    def _write(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame)
        except OSError as error:
            raise LocalError("daemon_unreachable", "it closed the connection") from error

    def _read(self) -> Object:
        try:
            (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
            return decode_frame(self._exactly(check_length(length)))
        except TimeoutError as error:
            raise LocalError("daemon_unreachable", "it did not answer in time") from error
        except OSError as error:
            raise LocalError("daemon_unreachable", "the connection broke") from error

    def _receive(self, length: int) -> bytes:
        """Read so many bytes and none beyond them, as the buffered stream would."""
        found = b""
        while len(found) < length:
            try:
                part = self._socket.recv(length - len(found))
            except OSError as error:
                raise LocalError("daemon_unreachable", "the connection broke") from error
            if not part:
                raise LocalError("daemon_unreachable", "it stopped before it answered")
            found += part
        return found

    def _exactly(self, length: int) -> bytes:
        found = self._stream.read(length)
        if len(found) < length:
            raise LocalError("daemon_unreachable", "it stopped before it answered")
        return found


def encode_frame(content: Object) -> bytes:
    """One frame. A lone surrogate cannot be written, and becomes a question mark."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return LENGTH.pack(check_length(len(body))) + body


def decode_frame(body: bytes) -> Object:
    """The object of one frame.

    Raises:
        LocalError: `daemon_unreachable`; these bytes are not a frame of ours.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LocalError("daemon_unreachable", "the frame is not JSON") from error
    if not isinstance(found, dict):
        raise LocalError("daemon_unreachable", "the frame is not an object")
    return found


def check_length(length: int) -> int:
    """`length`, when a frame may have it; checked before anything of that size is allocated."""
    if length > MAX_FRAME_BYTES:
        raise LocalError("daemon_unreachable", f"a frame of {length} bytes is too large")
    return length


def error_object(error: ClaudemeshError) -> Object:
    """An error as `--json` and the socket show it, docs/spec/ipc.md §3. It holds no secret and no message text."""
    return {
        "code": error.code,
        "message": _message(error),
        "hint": error.hint(),
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
        "exit_code": _exit_code(error),
        "took_effect": _took_effect(error),
    }


def peer_uid(connection: socket.socket) -> int | None:
    """The operating-system user at the other end of a Unix socket; None where the system cannot tell."""
    if hasattr(socket, "SO_PEERCRED"):  # Linux: struct ucred {pid, uid, gid}
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    if _PLATFORM == "darwin":  # struct xucred {version, uid, …} by LOCAL_PEERCRED at level SOL_LOCAL
        return int(struct.unpack("=II", connection.getsockopt(0, 1, 76)[:8])[1])
    return None


def _exit_code(error: ClaudemeshError) -> int:
    """The class of a failure; a rule that forbids what we ourselves ask for is a refusal, not broken integrity."""
    by_code = {"cap": Refused.exit_code, "denied": Refused.exit_code, "internal": ClaudemeshError.exit_code}
    return by_code.get(error.code, error.exit_code)


def _message(error: ClaudemeshError) -> str:
    """What happened, for a person: the code in words, and what it is about."""
    if error.code == "usage" and error.detail:
        return error.detail
    words = error.code.replace("_", " ")
    return f"{words}: {error.detail}" if error.detail else words


def _took_effect(error: ClaudemeshError) -> str:
    said = getattr(error, "took_effect", None)
    if isinstance(said, str):
        return said
    unknown = isinstance(error, Unreachable) or error.code in _UNKNOWN
    return "unknown" if unknown else "nothing"


def _connect(path: Path) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise LocalError("daemon_unreachable", "this system has no Unix sockets")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise LocalError("daemon_unreachable", "nobody listens on its socket") from error
    uid = peer_uid(connection)
    if uid is not None and uid != os.getuid():
        connection.close()
        raise LocalError("daemon_unreachable", "another user listens on its socket")
    return connection
