"""`claudemesh mcp http` for tests: the real process, and what speaks to it: the official SDK's client, or raw HTTP."""

import http.client
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.mcp_clients import ERAS, MODES, Agent
from tests.processes import Machine

CLIENT = "agent"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
_ENVELOPE: dict[str, Any] = {"protocolVersion": ERAS[1], "clientCapabilities": {}}
SPEAKS_JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass
class HttpServer:
    """A running server on a port of its own."""

    process: subprocess.Popen[str]
    url: str
    token_files: dict[str, Path]

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def token(self, client: str = CLIENT) -> str:
        """The secret of a client, as a person would put it into its settings."""
        return self.token_files[client].read_text().strip()

    def bearer(self, client: str = CLIENT) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(client)}"}


@contextmanager
def http_server(place: Machine, *options: str, port: int = 0) -> Iterator[HttpServer]:
    """The process; ended as a person ends it."""
    process = place.start("mcp", "http", "--listen", f"127.0.0.1:{port}", "--json", *options)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    told = json.loads(line)
    files = {one["client"]: Path(one["token_file"]) for one in told["clients"]}
    try:
        yield HttpServer(process, told["url"], files)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@asynccontextmanager
async def http_agent(
    server: HttpServer,
    query: str = "",
    *,
    era: str = ERAS[0],
    client: str = CLIENT,
    on_message: Callable[[Any], Any] | None = None,
) -> AsyncIterator[Agent]:
    """A session of the SDK's client, in an era of the protocol."""
    async with create_mcp_http_client(server.bearer(client)) as http_client:
        transport = streamable_http_client(f"{server.url}?{query}", http_client=http_client)
        async with Client(transport, mode=MODES[era], message_handler=on_message) as one:
            assert one.protocol_version == era
            yield Agent(one)


@dataclass
class Answer:
    """What came back by raw HTTP."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages in it, whether it is one JSON text or a stream of events."""
        if "text/event-stream" in self.headers.get("content-type", ""):
            data = [line[5:].strip() for line in self.body.splitlines() if line.startswith("data:")]
            return [json.loads(one) for one in data if one]
        return [json.loads(self.body)] if self.body else []


def exchange(port: int, message: Any, headers: dict[str, str], *, method: str = "POST", query: str = "") -> Answer:
    """One request, whose headers are what is given and nothing else; None leaves one out."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    connection.putrequest(method, f"/mcp?{query}", skip_host=True, skip_accept_encoding=True)
    told = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **SPEAKS_JSON, **headers}
    for name, value in told.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        connection.send(body)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read().decode())
    finally:
        connection.close()


def raw_request(port: int, message: Any, headers: dict[str, str], *, method: str = "POST") -> bytes:
    """A request as it goes over the wire, for a client that does not wait for the answer."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    told = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **SPEAKS_JSON, **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body


def tool_call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    """A request to call a tool."""
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def modern(number: int, method: str, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """A request of the 2026 protocol, and the headers that it asks for."""
    meta = {f"io.modelcontextprotocol/{name}": value for name, value in _ENVELOPE.items()}
    headers = {"Mcp-Protocol-Version": ERAS[1], "Mcp-Method": method}
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": meta}}, headers


def opened_session(server: HttpServer, client: str = CLIENT, query: str = "") -> dict[str, str]:
    """The headers of a session of the 2025 protocol that is open."""
    answer = exchange(server.port, INITIALIZE, server.bearer(client), query=query)
    assert answer.status == 200, answer
    return {**server.bearer(client), "Mcp-Session-Id": answer.headers["mcp-session-id"]}
