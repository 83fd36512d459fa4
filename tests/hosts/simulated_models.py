"""What the simulated model APIs share: a real HTTP server on loopback, a script that plays the model, and a log.

Only the model is simulated. The programs that call it are the real ones, and speak their own protocol over a socket.
A script is a function of the request and its number; it returns what the model says. It may block: then the model
thinks for as long as the test wants.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Body = dict[str, Any]


class Say(NamedTuple):
    """The model writes text."""

    text: str


class Call(NamedTuple):
    """The model calls a tool."""

    tool: str
    input: dict[str, Any]
    namespace: str = ""
    """Codex alone names a server apart from the tool."""


class Fail(NamedTuple):
    """The API refuses the request: the model never saw it."""

    status: int


Block = Say | Call
Script = Callable[[Body, int], list[Block] | Fail]


@dataclass
class Request:
    """One request of an agent's main loop."""

    model: str
    """Which script answered: the name that the program's key ends with."""
    number: int
    at: float
    """By the clock of `time.time`."""
    body: Body

    @property
    def text(self) -> str:
        """Everything that reached the model, as one text with real line ends."""
        return "\n".join(strings(self.body))


@dataclass
class SimulatedModels:
    """A server whose models follow scripts, by name; `*` is for any other one."""

    handler: type["ModelHandler"]
    scripts: dict[str, Script]
    requests: list[Request] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """What failed inside a script; a test looks at it at the end."""
    _counts: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        handler = type("Handler", (self.handler,), {"models": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, model: str) -> list[Request]:
        """The requests that one model got."""
        return [one for one in self.requests if one.model == model]

    def answer(self, model: str, body: Body) -> list[Block] | Fail:
        """What a model says to a request of a main loop."""
        with self._lock:
            number = self._counts.get(model, 0)
            self._counts[model] = number + 1
            self.requests.append(Request(model, number, time.time(), body))
        script = self.scripts.get(model) or self.scripts["*"]
        try:
            return script(body, number)
        except Exception as error:  # noqa: BLE001 - a script that fails fails its test, not the server
            self.errors.append(f"{model} {number}: {error!r}")
            return [Say(f"SCRIPT ERROR {error!r}")]


class ModelHandler(BaseHTTPRequestHandler):
    """What the protocols share."""

    protocol_version = "HTTP/1.1"
    models: SimulatedModels

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""

    def read_body(self) -> Body:
        return dict(json.loads(self.rfile.read(int(self.headers.get("content-length", 0) or 0)) or b"{}"))

    def send_json(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int) -> None:
        error = {"type": "api_error", "code": status, "message": "simulated", "status": "INTERNAL"}
        self.send_json(status, {"type": "error", "error": error})

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def send_event(self, content: Any, name: str = "") -> None:
        head = f"event: {name}\n" if name else ""
        self.wfile.write(f"{head}data: {json.dumps(content)}\n\n".encode())
        self.wfile.flush()

    def do_HEAD(self) -> None:
        self.send_json(200, {})

    def do_GET(self) -> None:
        self.send_json(404, {"error": {"type": "not_found_error", "message": "simulated"}})


def strings(content: Any) -> list[str]:
    """Every text inside a JSON value."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        return [text for one in content for text in strings(one)]
    if isinstance(content, dict):
        return [text for one in content.values() for text in strings(one)]
    return []
