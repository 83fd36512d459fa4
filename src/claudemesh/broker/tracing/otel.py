"""Sends spans to an OpenTelemetry collector; the only module that imports its libraries (docs/adr/0013).

What the specification of OpenTelemetry leaves to the environment is read there by its own libraries: headers, timeout,
certificate, sampler, sizes and delays of the batches, resource attributes.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE, OTEL_TRACES_SAMPLER
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import Status, StatusCode

from claudemesh.broker.metrics import Metrics
from claudemesh.broker.store.base import Outdated
from claudemesh.broker.tracing.spans import RARE, SPANS, Value
from claudemesh.errors import ClaudemeshError

PATH: Final = "/v1/traces"
SAMPLED: Final = 0.1
"""Share of traces that are kept where the environment chooses no sampler."""
QUEUE: Final = 2_048
"""Spans that wait for the exporter, where the environment sets no bound."""
CLOSE_WITHIN_S: Final = 1.0
_NAMES: Final = {name: f"claudemesh.{name}" for names in SPANS.values() for name in names}


class OtelTracer:
    """Implements `Tracer`; sampling happens when a span begins, encoding and sending on a thread of their own."""

    def __init__(self, endpoint: str, metrics: Metrics) -> None:
        """Start the exporting thread; nothing is connected before the first batch.

        Args:
            endpoint: Base URL of a collector, without the path of the signal.
            metrics: Counts spans that were exported and that were dropped.
        """
        # Its warnings are plain text about URLs and exceptions; what matters of them is counted.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        logging.getLogger("opentelemetry").propagate = False
        release = version("claudemesh")
        sampler = None if OTEL_TRACES_SAMPLER in os.environ else ParentBased(_Telling())
        self._provider = TracerProvider(sampler, _resource(release), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + PATH)
        self._provider.add_span_processor(_Bounded(exporter, metrics))
        self._tracer = self._provider.get_tracer("claudemesh.broker", release)

    @contextmanager
    def span(self, name: str) -> Iterator["_Span"]:
        """See `Tracer.span`."""
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
            one = _Span(span)
            try:
                yield one
            except Outdated:
                one.note(code="outdated")  # it is tried again
                raise
            except ClaudemeshError as error:
                one.fail(error.code)
                raise
            except Exception:
                one.fail("internal")
                raise

    def record(self, name: str, began_ns: int, **values: Value) -> None:
        """See `Tracer.record`."""
        span = self._tracer.start_span(name, start_time=began_ns)
        _Span(span).note(**values)
        span.end()

    def close(self) -> None:
        """See `Tracer.close`."""
        # The library waits for a request under way as long as that takes; a broker that stops does not.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_WITHIN_S)


class _Span:
    """Implements `Span`."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def note(self, **values: Value) -> None:
        if self._span.is_recording():
            self._span.set_attributes({_NAMES[name]: value for name, value in values.items()})

    def fail(self, code: str) -> None:
        self.note(code=code)
        self._span.set_status(Status(StatusCode.ERROR))


class _Telling(Sampler):
    """Every rare span, and a share of the others."""

    def __init__(self) -> None:
        self._share = TraceIdRatioBased(SAMPLED)

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **values: Any
    ) -> SamplingResult:
        sampler = ALWAYS_ON if name in RARE else self._share
        return sampler.should_sample(parent_context, trace_id, name, *args, **values)

    def get_description(self) -> str:
        return f"every rare span, {SAMPLED:.0%} of the others"


class _Bounded(BatchSpanProcessor):
    """Batches spans; what finds no room, or could not be sent, is dropped and counted."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counting = threading.Lock()
        self._room = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE))
        super().__init__(_Reporting(exporter, self._handed_over), max_queue_size=self._room)

    def on_end(self, span: ReadableSpan) -> None:
        """Put a span in line, or drop it."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._counting:
            if not self._room:
                self._metrics.spans_dropped += 1
                return
            self._room -= 1
        super().on_end(span)

    def _handed_over(self, count: int, is_sent: bool) -> None:
        with self._counting:
            self._room += count
            if is_sent:
                self._metrics.spans_exported += count
            else:
                self._metrics.spans_dropped += count


class _Reporting(SpanExporter):
    """Says how each export ended."""

    def __init__(self, exporter: SpanExporter, ended: Callable[[int, bool], None]) -> None:
        self._exporter = exporter
        self._ended = ended

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._ended(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource(release: str) -> Resource:
    """Who sends: nothing of this machine but what the environment says of it."""
    own = {"service.name": "claudemesh-broker", "service.version": release, "service.instance.id": str(uuid.uuid4())}
    return Resource(own).merge(OTELResourceDetector().detect())
