"""Opens what a broker's settings name; each library is imported by those alone who need it (docs/spec/broker.md §1)."""

from pathlib import Path

from claudemesh.broker.bus.base import Bus
from claudemesh.broker.config import Settings
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.store.base import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.tracing.spans import Tracer
from claudemesh.errors import UsageError
from claudemesh.types import BrokerId


def open_tracer(settings: Settings, metrics: Metrics) -> Tracer | None:
    """Where spans go, or None.

    Raises:
        UsageError: The libraries are not installed, or the environment sets them up wrongly.
    """
    if settings.otlp is None:
        return None
    try:
        from claudemesh.broker.tracing.otel import OtelTracer  # an extra
    except ImportError as error:
        raise UsageError("usage", "--otlp needs more libraries: pip install 'claudemesh[otel]'") from error
    try:
        return OtelTracer(settings.otlp, metrics)
    except ValueError as error:
        raise UsageError("usage", f"an OTEL_ variable of the environment is wrong: {error}") from error


async def open_store(settings: Settings, tracer: Tracer | None) -> Store:
    """The database, open; raises `LocalError` as `Store.open`."""
    store: Store
    if settings.database is None or isinstance(settings.database, Path):
        store = SqliteStore(settings.database)
    else:
        from claudemesh.broker.store.postgres import PostgresStore

        if tracer is None:
            store = PostgresStore(settings.database)
        else:
            from claudemesh.broker.tracing.lane import traced_lane

            store = PostgresStore(settings.database, traced_lane(tracer))
    await store.open()
    return store


def open_bus(settings: Settings, broker: BrokerId) -> Bus | None:
    """The bus, not yet connected; None for a broker that is alone."""
    if settings.bus is None:
        return None
    from claudemesh.broker.bus.nats import NatsBus

    return NatsBus(settings.bus, broker)
