"""The writing lane of the PostgreSQL store with a span for each operation: how long it waited for its turn."""

import time
from collections.abc import Collection
from typing import TypeVar

from claudemesh.broker.store.postgres.lane import Lane, Operation
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.tracing.spans import Tracer
from claudemesh.types import MeshId

T = TypeVar("T")


def traced_lane(to: Tracer) -> type[Lane]:
    """The class of lanes whose spans go `to` a tracer."""

    class TracedLane(Lane):
        async def do(self, operation: Operation[T], meshes: Collection[MeshId] = ()) -> T:
            asked_at, began_at = time.perf_counter_ns(), 0

            async def noting(transaction: Transaction) -> T:
                nonlocal began_at
                began_at = time.perf_counter_ns()
                return await operation(transaction)

            with to.span("lane") as span:
                try:
                    return await super().do(noting, meshes)
                finally:
                    waited_ns = (began_at or time.perf_counter_ns()) - asked_at
                    span.note(meshes=len(meshes), waited_us=waited_ns // 1_000)

    return TracedLane
