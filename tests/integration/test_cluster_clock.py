"""All nodes go by one clock, whatever their machines say (docs/spec/cluster.md §2)."""

import asyncio
from typing import Final

import pytest

from claudemesh.broker import heart as heart_module
from claudemesh.broker.heart import Heart, unix_millis
from claudemesh.broker.logs import open_log
from claudemesh.broker.store.base import Beat, NodeId
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.types import BrokerId, UnixMillis

TEN_MINUTES_MS: Final = 600_000
KEY = BrokerId("ab" * 32)


class StoreAhead(SqliteStore):
    """A store whose clock is ten minutes ahead of this machine's."""

    async def beat(self, node: NodeId, lapse_ms: int | None) -> Beat:
        beat = await super().beat(node, lapse_ms)
        return Beat(UnixMillis(beat.at + TEN_MINUTES_MS), beat.is_alive, beat.buried)


async def test_a_machine_whose_clock_is_wrong_dates_nothing_wrongly() -> None:
    """A node takes the store's time when it joins."""
    store = StoreAhead(None)
    await store.open()
    heart = Heart(store, KEY, open_log("error", None), alone=False)

    await heart.join()

    assert abs(heart.clock() - unix_millis() - TEN_MINUTES_MS) < 5_000
    await store.close()


async def test_a_pause_of_the_store_buries_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not served itself lately cannot tell a dead node from one that was not served either."""
    monkeypatch.setattr(heart_module, "BEAT_S", 0.05)
    monkeypatch.setattr(heart_module, "LAPSE_MS", 200)
    monkeypatch.setattr(heart_module, "_WITNESS_S", 0.15)
    store = SqliteStore(None)
    await store.open()
    hearts = [Heart(store, KEY, open_log("error", None), alone=False) for _ in range(2)]
    for heart in hearts:
        await heart.join()
    deaths: list[int] = []

    async def died() -> None:
        deaths.append(1)

    await asyncio.sleep(0.5)  # longer than the lapse, in which nobody could beat
    beating = [asyncio.create_task(heart.beat_forever(died, deaths.append)) for heart in hearts]
    await asyncio.sleep(1)
    for task in beating:
        task.cancel()
    await asyncio.gather(*beating, return_exceptions=True)

    assert deaths == []
    await store.close()
