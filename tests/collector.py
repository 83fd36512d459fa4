"""A simulated OpenTelemetry collector: takes OTLP over HTTP from the real exporter, and keeps all that came."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What was sent, as bytes and decoded."""

    url: str
    traffic: list[bytes] = field(default_factory=list)
    """Head and body of each request."""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self, name: str = "") -> list[Span]:
        """Every span that came, or those of one name."""
        scopes = [scope for one in self.requests for sent in one.resource_spans for scope in sent.scope_spans]
        return [span for scope in scopes for span in scope.spans if not name or span.name == name]

    def resources(self) -> list[dict[str, Any]]:
        """The attributes of each sender."""
        return [attributes(sent.resource) for one in self.requests for sent in one.resource_spans]


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            one.traffic.append(f"{self.requestline}\n{self.headers}".encode() + body)
            assert self.path == "/v1/traces"
            one.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    with collector() as running:
        print(running.url.rpartition(":")[2], flush=True)
        threading.Event().wait()
