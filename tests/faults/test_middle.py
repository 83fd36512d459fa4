"""The broken middle of the fault tests does what it is told, and a clock that is set is set for whoever goes by it."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.faults.clocks import Clock
from tests.faults.middle import MOST_OVERTAKEN, Middle, middle

MANY = 200
TELL_TIME = """
import time
while input():
    print(time.time(), time.monotonic(), flush=True)
"""


@pytest.fixture
async def echoed() -> AsyncIterator[Middle]:
    """A middle before a server that sends back what it gets."""

    async def echo(request: web.Request) -> web.WebSocketResponse[Any]:
        socket: web.WebSocketResponse[Any] = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.data == "end":
                await socket.close(code=1012)
            else:
                await socket.send_str(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/ws", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with middle(f"http://127.0.0.1:{runner.addresses[0][1]}/ws", random.Random(1)) as made:
            yield made
    finally:
        await runner.cleanup()


async def exchange(through: Middle) -> tuple[list[int], int | None]:
    """Send numbers until they have come back and the server ends; what came, and the code of the close."""
    async with aiohttp.ClientSession() as session, session.ws_connect(through.url) as socket:
        for number in range(MANY):
            await socket.send_str(str(number))
        came: list[int] = []
        while len(set(came)) < MANY:
            came.append(int(await socket.receive_str()))
        await socket.send_str("end")
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            came.append(int(message.data))
        return came, socket.close_code


async def test_a_middle_that_works_changes_nothing(echoed: Middle) -> None:
    """Each frame once, in its order, and the code with which the far side ends."""
    assert await exchange(echoed) == (list(range(MANY)), 1012)
    assert echoed.spoilt == Counter()


async def test_a_middle_that_repeats_loses_nothing(echoed: Middle) -> None:
    """Both ways: some come four times."""
    echoed.repeats = True

    came, _ = await exchange(echoed)

    counts = Counter(came)
    assert (set(counts), max(counts.values())) == (set(range(MANY)), 4)
    assert echoed.spoilt["repeated"] >= len(came) - MANY


async def test_a_middle_that_reorders_loses_and_repeats_nothing(echoed: Middle) -> None:
    """Frames are overtaken by a few others, not for ever."""
    echoed.reorders = True

    came, _ = await exchange(echoed)

    assert came != list(range(MANY))
    assert sorted(came) == list(range(MANY))
    assert max(abs(place - number) for place, number in enumerate(came)) <= 8 * MOST_OVERTAKEN


def test_a_clock_that_is_set_is_wrong_until_it_is_set_right(tmp_path: Path) -> None:
    """For programs that run; the time between two moments stays true. It knows afterwards when it showed what."""
    clock = Clock(tmp_path / "clock")
    command = [sys.executable, "-c", TELL_TIME]
    shown: list[tuple[float, float]] = []
    with subprocess.Popen(
        command, env=clock.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for seconds in (0, 600, -600, 0):
            clock.jump(seconds)
            subprocess.run(["sleep", "1.5"], check=True)
            process.stdin.write("again\n")
            process.stdin.flush()
            wall, monotonic = process.stdout.readline().split()
            shown.append((float(wall), float(monotonic)))

    offsets = [round((wall - shown[0][0]) - (monotonic - shown[0][1])) for wall, monotonic in shown]
    assert offsets == [0, 600, -600, 0]
    true = [clock.true_times(int(wall * 1000))[0] / 1000 - monotonic for wall, monotonic in shown]
    assert max(true) - min(true) < 0.5
    assert clock.true_times(int(shown[0][0] * 1000) + 300_000) == []
