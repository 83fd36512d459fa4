"""Which classes a broker is built of: the plain ones, or those whose work becomes spans."""

from typing import TypeVar

from claudemesh.broker.tracing.spans import Tracer

T = TypeVar("T")


class Parts:
    """Asked once for each part, when a broker is built: so a broker that traces nothing pays nothing."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def of(self, kind: type[T]) -> type[T]:
        """The class to build in place of `kind`."""
        if self._tracer is None:
            return kind
        from claudemesh.broker.tracing.traced import traced

        return traced(kind, self._tracer)
