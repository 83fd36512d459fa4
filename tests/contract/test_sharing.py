"""Whose the envelopes of a mailbox are that fills up (docs/spec/broker.md §4.4), as every store has counted it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits
from claudemesh.broker.sharing import Sharing
from claudemesh.broker.store.base import Store, Usage
from tests.contract.test_store import ALICE, BOB, CAROL, MESH, NOW, submission

LIMITS = Limits(mailbox_rows=8, mailbox_bytes=8_000)


class Spawned:
    """What a broker does beside the commit that has caused it, done when it is asked for."""

    def __init__(self) -> None:
        self.works: list[Coroutine[Any, Any, None]] = []

    def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        self.works.append(work)

    async def finish(self) -> None:
        await asyncio.gather(*self.works)
        self.works.clear()


async def test_a_mailbox_with_room_is_not_looked_at(store: Store) -> None:
    """Three quarters of the rows and half of the bytes, with what may come at the same time."""
    spawned = Spawned()
    sharing = Sharing(store, LIMITS, Metrics(), spawned)

    looked_at = [sharing.senders(MESH, BOB, used, 1) for used in (Usage(5, 4_000), Usage(6, 10), Usage(1, 4_001))]

    assert looked_at[0] is None
    assert None not in looked_at[1:]
    assert len(spawned.works) == 1
    await spawned.finish()


async def test_no_commit_waits_for_a_count_and_later_ones_know_it(store: Store) -> None:
    """Until then a sender has its share of what is left; from then on, of all."""
    await store.append([submission(size=1) for _ in range(6)], NOW)
    await store.append([submission(sender=CAROL, size=1)], NOW)
    spawned = Spawned()
    sharing = Sharing(store, LIMITS, Metrics(), spawned)

    first = sharing.senders(MESH, BOB, Usage(7, 7), 1)
    before = first is not None and first.take(ALICE, 1, 1, 7_993)
    await spawned.finish()
    second = sharing.senders(MESH, BOB, Usage(7, 7), 1)

    assert before
    assert second is not None
    assert not second.take(ALICE, 1, 1, 7_993)
    assert second.take(CAROL, 1, 1, 7_993)
    assert spawned.works == []
