"""span_us: what a span costs the broker, kept and sent, or left out; spans_per_message: how many there are under load.

Their product is what traces cost a message: too little to be seen in the rate of a broker on a busy machine.
"""

import time

import uvloop

from claudemesh.broker.metrics import Metrics
from claudemesh.broker.tracing.otel import SAMPLED, OtelTracer
from tests.bench import lanes, processes
from tests.bench.report import Figure
from tests.bench.routing import LINKS, MESSAGES_PER_LINK, NO_LIMITS, closed
from tests.collector import Collector, collector

SPANS = 20_000
BURST = 500
"""Spans after which the exporter gets time, so that none finds its queue full."""
SAMPLER = "OTEL_TRACES_SAMPLER"


def measure() -> dict[str, Figure]:
    """A tracer alone, then a broker that traces everything; the simulated collector is a process of its own."""
    with processes.python_server("tests.collector") as other:
        url = f"http://127.0.0.1:{other.port}"
        kept = _span_us(url, "always_on")
        left_out = _span_us(url, "always_off")
    with collector() as near:
        per_message = uvloop.run(_spans_per_message(near))
    cost = per_message * (SAMPLED * kept + (1 - SAMPLED) * left_out)
    return {
        "span_us": Figure(round(kept, 1), "µs", note="CPU of the process, encoding and sending included"),
        "span_left_out_us": Figure(round(left_out, 1), "µs", note="one that the sampler does not keep"),
        "spans_per_message": Figure(
            round(per_message, 4), "", note=f"under full load; {cost:.2f} µs a message with the usual sampler"
        ),
    }


def _span_us(url: str, sampler: str) -> float:
    with processes.variable(SAMPLER, sampler):
        metrics = Metrics()
        tracer = OtelTracer(url, metrics)
        began = time.process_time()
        for number in range(SPANS):
            with tracer.span("commit") as span:
                span.note(letters=number, fan_outs=0, acknowledged=0, stored=0, outdated=0)
            if number % BURST == 0:
                time.sleep(0.02)
        tracer.close()
        assert metrics.spans_dropped == 0
        return (time.process_time() - began) / SPANS * 1e6


async def _spans_per_message(near: Collector) -> float:
    with processes.directory() as path, processes.variable(SAMPLER, "always_on"):
        with processes.broker(path, "--otlp", near.url, limits=NO_LIMITS) as server:
            mesh = await lanes.found_on(server.url, LINKS)
            speakers = [mesh.speaker(index) for index in range(LINKS)]
            to_broker = await lanes.member_lanes(server.url, mesh, speakers)
            await closed(to_broker, mesh, speakers, MESSAGES_PER_LINK)
            lanes.close(to_broker)
    return len(near.spans("commit") + near.spans("lease")) / (LINKS * MESSAGES_PER_LINK)
