"""`claudemesh mcp`: carries lines between a host's pipes and the daemon, which is the MCP server (docs/mcp.md §1).

One such process runs for each session of each host, so that it is small: no asyncio, no SDK. It outlives the daemon:
when that ends, what was asked and not answered is answered with an error, and the next request begins anew with a
daemon that is started if need be. To a session of the 2025 protocol the handshake is played again, unseen by the host.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Final

from claudemesh.daemon import launch
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import AnsweredError, Client, error_object
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.options import attach_arguments, read_options

OPERATION: Final = "mcp.attach"
WRITTEN: Final = "notifications/claudemesh/written"
"""Tells the daemon that the answer to a request is in the host's pipe; the SDK never sees it."""
SENT: Final = "notifications/claudemesh/sent"
"""Tells the daemon that it has left for a host from which nothing was heard since; `WRITTEN` may follow (HTTP)."""
UNSENT: Final = "notifications/claudemesh/unsent"
"""Tells the daemon that nobody was there to take it (HTTP)."""
POLL_S: Final = 1.0
"""How often a session without a daemon looks whether there is one again."""
ANSWERS_WITHIN_S: Final = 10.0
"""How long what was asked may take to be answered after the host closed its end; hosts that mean it end us sooner."""
_FINISH_WITHIN_S: Final = 2.0
_LOOK_S: Final = 0.02
SERVER_ERROR: Final = -32000
REPLAYED: Final = frozenset({"initialize", "notifications/initialized", "resources/subscribe"})
"""What a new daemon is told again of a session of the 2025 protocol."""
LOST: Final = (
    "The claudemesh daemon ended during this call; whether it took effect is not known. It is started again by the"
    " next call. Before you send a message a second time, ask its recipient whether it came."
)

Json = dict[str, Any]


def main(words: Sequence[str]) -> int | None:
    """Serve the session on standard input and output.

    Returns:
        The exit code; None when the words are for click.
    """
    options = read_options(words)
    if options is None:
        return None
    arguments = attach_arguments(options, os.environ, _cwd(), os.getppid())
    pump = Pump(ConfigDir.of_environment(), arguments, sys.stdin.buffer, sys.stdout.buffer)
    try:
        return pump.run()
    except AnsweredError as error:
        return _leave(error.error)
    except ClaudemeshError as error:
        return _leave(error_object(error))
    except KeyboardInterrupt:
        return 130


class _Asked:
    """A request of the host: whether it calls a tool, and the link by which it went."""

    __slots__ = ("is_tool", "link")

    def __init__(self, is_tool: bool) -> None:
        self.is_tool = is_tool
        self.link: socket.socket | None = None


class Pump:
    """One session's pipe. The main thread carries what the host writes, another one what the daemon answers."""

    def __init__(self, config: ConfigDir, arguments: Mapping[str, Any], source: BinaryIO, sink: BinaryIO) -> None:
        self._config = config
        self._arguments = dict(arguments)
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._link: socket.socket | None = None
        self._is_finished = False
        self._asked: dict[str, _Asked] = {}
        """Requests without an answer, by their id as JSON."""
        self._replayed: list[bytes] = []
        self._hidden: set[str] = set()
        """Ids of requests that were played again: the host has their answers."""

    def run(self) -> int:
        """Carry lines until the host closes its end.

        Raises:
            AnsweredError, LocalError: There is no daemon, and it cannot be started.
        """
        self._attach(self._connect())
        for line in self._source:
            self._forward(line)
        self._wait_for_answers()
        self._is_finished = True
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_WR)
            self._reader.join(_FINISH_WITHIN_S)
        return 0

    def _wait_for_answers(self) -> None:
        """Who writes its requests and closes its end at once still gets what is answered soon."""
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while self._asked and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    # To the daemon

    def _forward(self, line: bytes) -> None:
        message = _parsed(line)
        asked = self._note(message)
        whole = line if line.endswith(b"\n") else line + b"\n"
        if not (self._send(self._link, whole, asked) or self._send(self._reattach(), whole, asked)):
            self._give_up([asked])
        if message.get("method") in REPLAYED:
            self._replayed.append(whole)

    def _send(self, link: socket.socket | None, line: bytes, asked: str = "") -> bool:
        """Whether the line went out whole; where it did not, the daemon has not read it."""
        if link is None:
            return False
        with self._sending:
            if asked in self._asked:
                self._asked[asked].link = link
            try:
                link.sendall(line)
            except OSError:
                with self._lock:
                    self._link = None if self._link is link else self._link
                if asked in self._asked:
                    self._asked[asked].link = None
                return False
        return True

    def _note(self, message: Json) -> str:
        """Keep in mind who waits for an answer, before it can come or be lost; returns the id, "" where nobody does."""
        method, identity = message.get("method"), message.get("id")
        with self._lock:
            if isinstance(method, str) and identity is not None:
                self._asked[json.dumps(identity)] = _Asked(method == "tools/call")
                return json.dumps(identity)
            if method == "notifications/cancelled":
                params = message.get("params")
                gone = params.get("requestId") if isinstance(params, dict) else None
                self._asked.pop(json.dumps(gone), None)
        return ""

    def _connect(self) -> Client:
        return launch.connect(self._config, _say)

    def _attach(self, client: Client) -> socket.socket:
        link = client.attach(OPERATION, self._arguments)
        link.settimeout(None)
        for line in self._replayed:
            identity = _parsed(line).get("id")
            if identity is not None:
                self._hidden.add(json.dumps(identity))
            link.sendall(line)
        self._link = link
        self._reader = threading.Thread(target=self._carry_back, args=(link,), daemon=True)
        self._reader.start()
        return link

    def _reattach(self, *, start: bool = True) -> socket.socket | None:
        """A link to a daemon that runs again, or is started; None when that fails."""
        with self._lock:
            if self._link is not None:
                return self._link
            try:
                client = self._connect() if start else launch.running(self._config)
                return self._attach(client) if client is not None else None
            except (AnsweredError, ClaudemeshError, OSError) as error:
                if start:
                    _say(str(error.error.get("message")) if isinstance(error, AnsweredError) else str(error))
            return None

    # From the daemon

    def _carry_back(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError), link.makefile("rb") as lines:
            for line in lines:
                self._answer(link, line)
        self._lose(link)

    def _answer(self, link: socket.socket, line: bytes) -> None:
        message = _parsed(line)
        identity = json.dumps(message.get("id")) if "method" not in message and "id" in message else None
        with self._lock:
            if identity in self._hidden:
                self._hidden.discard(identity)
                return
            if identity is not None and self._asked.pop(identity, None) is None:
                return  # cancelled: the host drops such an answer, and what it carries was not read
        self._write(line)
        if identity is not None:
            written = {"jsonrpc": "2.0", "method": WRITTEN, "params": {"id": message["id"]}}
            self._send(link, json.dumps(written).encode() + b"\n")

    def _lose(self, link: socket.socket) -> None:
        """The daemon has ended: say so to whoever it was asked for, and look out for the next one."""
        with self._sending, self._lock:
            self._link = None if self._link is link else self._link
            lost = [identity for identity, one in self._asked.items() if one.link is link]
        link.close()
        self._give_up(lost)
        while not self._is_finished and self._reattach(start=False) is None:
            time.sleep(POLL_S)

    def _give_up(self, lost: Iterable[str]) -> None:
        """Answer what was asked and will not be answered."""
        for identity in lost:
            with self._lock:
                asked = self._asked.pop(identity, None)
            if asked is None:
                continue
            if asked.is_tool:
                outcome: Json = {"result": lost_result()}
            else:
                outcome = {"error": {"code": SERVER_ERROR, "message": LOST}}
            self._write(json.dumps({"jsonrpc": "2.0", "id": json.loads(identity), **outcome}).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        with self._lock:
            self._sink.write(line)
            self._sink.flush()


def lost_result() -> Json:
    """What a model is told of a tool whose answer will not come."""
    return {"content": [{"type": "text", "text": LOST}], "isError": True, "resultType": "complete"}


def _parsed(line: bytes) -> Json:
    """What a line says; nothing for one that is not JSON, which is for the server to complain about."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a plain text is wanted
    except OSError:  # it was removed under us
        return ""


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"claudemesh: {text}\n")
        sys.stderr.flush()


def _leave(error: Json) -> int:
    _say(f"{error.get('message')}. {error.get('hint') or ''}".rstrip())
    return int(error.get("exit_code", 1))
