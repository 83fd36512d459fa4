"""Traces of real brokers, sent by the real exporter over a real socket (docs/spec/broker.md §8)."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claudemesh.broker.metrics import Metrics
from claudemesh.broker.tracing.otel import OtelTracer
from claudemesh.broker.tracing.spans import SPANS
from tests.brokers import BrokerProcess as BusNode
from tests.brokers import settings
from tests.clusters import until
from tests.collector import Collector, attributes, collector
from tests.nats_server import nats_server
from tests.postgres import postgres_server
from tests.processes import BrokerProcess, Machine, free_port, introduce, machine, start_broker, wait_until

EVERYTHING = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
def collecting() -> Iterator[Collector]:
    with collector() as one:
        yield one


@contextmanager
def two_peers(directory: Path, broker: BrokerProcess) -> Iterator[tuple[Machine, Machine]]:
    """Alice and Bob, in one mesh."""
    with machine(directory, "alice") as alice, machine(directory, "bob") as bob:
        introduce(broker, alice, bob)
        yield alice, bob


def counted(broker: BrokerProcess, name: str) -> float:
    """One counter of the broker."""
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"claudemesh_{name}_total "))


def test_a_broker_tells_what_it_did_and_how_long_it_took(tmp_path: Path, collecting: Collector) -> None:
    """Every kind of span of a single broker, with its attributes and no others; a backlog in one lease."""
    with (
        start_broker(tmp_path, "--otlp", collecting.url, variables=EVERYTHING) as broker,
        two_peers(tmp_path, broker) as (alice, bob),
    ):
        bob.ok("daemon", "stop")
        for number in range(3):
            alice.ok("send", "bob", f"message {number}", "--wait", "accepted")
        bob.ok("daemon", "start")
        wait_until(lambda: len(bob.inbox("--all")) == 3, "bob has all three")
        alice.ok("mesh", "show", "team")
        assert broker.terminate() == 0

    kinds = {"commit", "handshake", "append", "lease"}
    assert {span.name for span in collecting.spans()} == kinds
    for span in collecting.spans():
        assert set(attributes(span)) <= {f"claudemesh.{name}" for name in SPANS[span.name]}
        assert span.end_time_unix_nano > span.start_time_unix_nano
        assert not span.events
        assert not span.status.message
    assert sum(attributes(span)["claudemesh.letters"] for span in collecting.spans("commit")) >= 3
    assert {attributes(span)["claudemesh.uploader"] for span in collecting.spans("append")} >= {"member", "claimant"}
    assert max(attributes(span)["claudemesh.rows"] for span in collecting.spans("lease")) >= 3
    assert {"service.name", "service.version", "service.instance.id"} == set(collecting.resources()[0])


def test_a_standard_variable_turns_traces_on_and_others_shape_them(tmp_path: Path, collecting: Collector) -> None:
    """As every program with OpenTelemetry: endpoint, headers, name and attributes from the environment."""
    variables = EVERYTHING | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collecting.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=seven",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_SERVICE_NAME": "our-broker",
    }
    with start_broker(tmp_path, variables=variables) as broker, two_peers(tmp_path, broker):
        wait_until(lambda: collecting.spans("handshake"), "a span has come")

    assert collecting.resources()[0]["service.name"] == "our-broker"
    assert collecting.resources()[0]["deployment.environment.name"] == "test"
    assert b"x-tenant: seven" in collecting.traffic[0]


def test_a_refusal_is_traced_by_its_code_alone(tmp_path: Path, collecting: Collector) -> None:
    """Neither the text of an error nor its traceback, which could quote what a peer has sent."""
    with (
        start_broker(tmp_path, "--otlp", collecting.url, variables=EVERYTHING) as broker,
        two_peers(tmp_path, broker) as (alice, bob),
    ):
        alice.ok("revoke", "bob")
        bob.run("daemon", "stop")
        bob.run("peers")
        wait_until(lambda: failed(collecting), "a handshake was refused")

    assert {attributes(span)["claudemesh.code"] for span in failed(collecting)} == {"revoked"}
    assert not any(span.status.message or span.events for span in collecting.spans())


def failed(one: Collector) -> list[object]:
    return [span for span in one.spans("handshake") if "claudemesh.code" in attributes(span)]


async def test_nodes_tell_of_their_database_and_of_burials(
    tmp_path: Path, collecting: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PostgreSQL each operation's wait for the writing lane, inside the span that asked for it; one node dies."""
    for name, value in EVERYTHING.items():
        monkeypatch.setenv(name, value)
    with postgres_server() as server:
        async with nats_server() as nats:
            shared = ("--database", server.database(), "--bus", nats.url, "--key", str(tmp_path / "broker.key"))
            nodes = [BusNode(tmp_path, *shared, "--otlp", collecting.url) for _ in range(2)]
            async with nodes[0], nodes[1]:
                await nodes[1].kill()
                await until(lambda: collecting.spans("burial"), within_s=60)

    (burial,) = collecting.spans("burial")
    lanes = [attributes(span) for span in collecting.spans("lane")]
    assert attributes(burial) == {"claudemesh.nodes": 1}
    assert lanes
    assert all({"claudemesh.meshes", "claudemesh.waited_us"} <= set(lane) for lane in lanes)


def test_a_collector_that_is_away_costs_a_count_and_nothing_else(tmp_path: Path) -> None:
    """Messages go on, what could not be sent is counted, the log stays JSON, and the broker stops when it is told."""
    nobody = f"http://127.0.0.1:{free_port()}"
    variables = EVERYTHING | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with (
        start_broker(tmp_path, "--otlp", nobody, variables=variables) as broker,
        two_peers(tmp_path, broker) as (alice, _),
    ):
        alice.ok("send", "bob", "arrives", "--wait", "delivered")
        wait_until(lambda: counted(broker, "spans_dropped") > 0, "spans were dropped")
        assert counted(broker, "spans_exported") == 0
        assert broker.terminate() == 0

    lines = [line for line in broker.log.read_text().splitlines() if not line.startswith("broker ")]
    assert {json.loads(line)["event"] for line in lines} == {"started", "stopped"}


def test_a_collector_that_never_answers_does_not_keep_a_broker_from_stopping(tmp_path: Path) -> None:
    """It takes connections, as a machine does that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        otlp = ("--otlp", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with start_broker(tmp_path, *otlp, variables=EVERYTHING) as broker, two_peers(tmp_path, broker) as (alice, _):
            alice.ok("send", "bob", "arrives", "--wait", "delivered")
            silent.accept()
            assert broker.terminate() == 0

    assert '"event": "stopped"' in broker.log.read_text()


def test_what_waits_for_a_collector_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred spans eight wait, those under way among them; the others are dropped at once, and counted."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = OtelTracer(f"http://127.0.0.1:{silent.getsockname()[1]}", metrics)
        for number in range(100):
            tracer.record("burial", 1, nodes=number)
        dropped = metrics.spans_dropped
        tracer.close()

    assert dropped == 92
    assert metrics.spans_exported == 0


OFF = """
import asyncio, sys
from pathlib import Path
from tests.brokers import serving

async def main():
    async with serving(Path(sys.argv[1])):
        print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "claudemesh.broker.tracing"))))

asyncio.run(main())
"""


def test_a_broker_that_is_not_asked_for_traces_loads_nothing_of_them(tmp_path: Path) -> None:
    """Neither a library nor a traced part: its classes are the plain ones."""
    with machine(tmp_path, "operator") as operator:
        loaded = operator.run_python(OFF.replace("sys.argv[1]", repr(str(tmp_path))), PYTHONPATH=str(Path.cwd()))

    assert loaded.exit_code == 0, loaded.stderr
    ours = [f"claudemesh.broker.tracing{module}" for module in ("", ".parts", ".spans")]
    assert loaded.stdout.strip() == str(ours)


WITHOUT_EXTRA = """
import sys
sys.modules["opentelemetry.sdk"] = None
from claudemesh.cli.broker import broker
broker(["--otlp", "http://127.0.0.1:4318", "--listen", "127.0.0.1:0"])
"""


def test_without_the_extra_the_broker_says_what_to_install(tmp_path: Path) -> None:
    """It does not start as if nothing had been asked for, and leaves no database behind."""
    with machine(tmp_path, "operator") as operator:
        refused = operator.run_python(WITHOUT_EXTRA)

    assert refused.exit_code == 2
    assert "pip install 'claudemesh[otel]'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (operator.home / "claudemesh-broker.db").exists()


@pytest.mark.parametrize("otlp", ["collector:4318", "ftp://collector", "http://"])
def test_an_endpoint_that_is_none_is_refused_without_repeating_it(tmp_path: Path, otlp: str) -> None:
    """It may hold a password."""
    with machine(tmp_path, "operator") as operator:
        refused = operator.run("broker", "--otlp", f"{otlp}?token=verysecret")

    assert refused.exit_code == 2
    assert "--otlp takes the base URL of a collector" in refused.stderr
    assert "verysecret" not in refused.stderr + repr(settings(tmp_path, otlp="http://x/verysecret"))


def test_a_wrong_variable_is_refused_when_the_broker_starts(tmp_path: Path) -> None:
    with machine(tmp_path, "operator") as operator:
        refused = operator.run("broker", "--otlp", "http://127.0.0.1:4318", OTEL_BSP_MAX_QUEUE_SIZE="many")

    assert refused.exit_code == 2
    assert "OTEL_" in refused.stderr
