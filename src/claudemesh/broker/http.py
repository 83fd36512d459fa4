"""Health, readiness and metrics over plain HTTP (docs/spec/broker.md §6)."""

from collections.abc import Iterator
from typing import Final

import msgspec

from claudemesh.broker.bus.base import Bus
from claudemesh.broker.core import Core
from claudemesh.errors import LocalError
from claudemesh.transport.listener import Answer

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Http:
    """Answers GET requests of operators; nothing here says who is connected or to which mesh."""

    def __init__(self, core: Core, bus: Bus | None) -> None:
        self._core = core
        self._bus = bus
        self._page: _Page | None = None
        self.draining = False
        self.half_open = 0

    async def answer(self, path: str) -> Answer:
        """Answer one path; anything else than these three is 404."""
        match path:
            case "/health":
                return _json(200, {"status": "ok"})
            case "/ready":
                return await self._ready()
            case "/metrics":
                return self._metrics()
            case _:
                return _json(404, {"status": "unknown"})

    async def _ready(self) -> Answer:
        if self.draining:
            return _json(503, {"status": "draining"})
        try:
            await self._core.store.ping()
        except LocalError as error:
            return _json(503, {"status": "storage", "code": error.code})
        return _json(200, {"status": "ready"})

    def _metrics(self) -> Answer:
        if self._page is None:
            self._page = _Page()
        return Answer(200, self._page.render(self._core, self._bus, self.half_open), _METRICS_TYPE)


class _Page:
    """The metrics page; its library is loaded with the first request for it."""

    def render(self, core: Core, bus: Bus | None, half_open: int) -> bytes:
        """Every value as of now."""
        from prometheus_client import generate_latest  # 40 ms and some MB that few brokers need at once
        from prometheus_client.registry import Collector, CollectorRegistry

        class Values(Collector):
            def collect(self) -> Iterator[object]:  # type: ignore[override]
                return _families(core, bus, half_open)

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Values())
        return generate_latest(registry)


def _families(core: Core, bus: Bus | None, half_open: int) -> Iterator[object]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    meshes = list(core.directory.loaded())
    yield GaugeMetricFamily("claudemesh_links", "Open links of members.", value=sum(len(mesh.links) for mesh in meshes))
    yield GaugeMetricFamily("claudemesh_links_half_open", "Connections before their handshake.", value=half_open)
    yield GaugeMetricFamily("claudemesh_meshes_loaded", "Meshes in memory.", value=len(meshes))
    held = core.ordering.holdings
    yield GaugeMetricFamily("claudemesh_meshes", "Meshes that are held.", value=held.meshes)
    yield GaugeMetricFamily(
        "claudemesh_roster_entries", "Roster entries that are held, of all meshes.", value=held.entries
    )
    yield GaugeMetricFamily("claudemesh_rosters_used_ratio", "Of what rosters may take in all.", value=held.used())
    if bus is not None:
        yield GaugeMetricFamily("claudemesh_bus_connected", "Whether hints come and go.", value=bus.is_connected())
    refused = CounterMetricFamily("claudemesh_refused", "Requests refused, by code.", labels=["code"])
    for name in core.metrics.__slots__:
        value = getattr(core.metrics, name)
        if name == "refused":
            for code, count in value.items():
                refused.add_metric([code], count)
        elif name in _HELP:
            yield CounterMetricFamily(f"claudemesh_{name}", _HELP[name], value=value)
    yield refused


_HELP: Final[dict[str, str]] = {
    "links_opened": "Links of members that were opened.",
    "links_refused": "Connections that were not accepted.",
    "links_replaced": "Links that gave way to a newer one of their session or peer.",
    "links_cut": "Links that were cut off because too much was held for them.",
    "handshakes_failed": "Handshakes that failed.",
    "frames_malformed": "Frames that were not of the protocol.",
    "envelopes_submitted": "Envelopes that links submitted.",
    "envelopes_accepted": "Envelopes that were stored, duplicates included.",
    "envelopes_duplicate": "Envelopes that were stored already.",
    "envelopes_pushed": "Deliveries written to links.",
    "envelopes_acknowledged": "Deliveries that were acknowledged.",
    "envelopes_expired": "Envelopes that nobody fetched in time.",
    "commits": "Commits of envelopes and acknowledgements.",
    "commit_seconds": "Time that those commits took.",
    "entries_appended": "Roster entries that were appended.",
    "store_failures": "Calls that the store could not carry out.",
    "commits_outdated": "Commits that another node had overtaken, and that were tried again.",
    "hints_received": "Hints of other nodes.",
    "nodes_buried": "Other nodes whose heartbeat this one found to have ended.",
    "spans_exported": "Spans that the collector of traces has taken.",
    "spans_dropped": "Spans that could not be sent to it, or found no room.",
}


def _json(status: int, body: dict[str, str]) -> Answer:
    return Answer(status, msgspec.json.encode(body) + b"\n")
