"""A broken middle: a WebSocket proxy between peers and their broker that repeats frames and changes their order."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
from aiohttp import ClientWebSocketResponse, WSMsgType, web

Socket = ClientWebSocketResponse[Any] | web.WebSocketResponse[Any]
SHARE: Final = 0.4
"""Of the frames, while the middle is broken."""
MOST_OVERTAKEN: Final = 3
HELD_S: Final = 0.1
"""What is held back is let go after this when nothing comes that could overtake it."""


class Middle:
    """Carries frames to `target`, each once and in its order unless it is told otherwise."""

    def __init__(self, target: str, rng: random.Random) -> None:
        self.port = 0
        self.repeats = False
        self.reorders = False
        self.spoilt: Counter[str] = Counter()
        """Frames that were `repeated` or `reordered`."""
        self._target = target
        self._rng = rng
        self._session = aiohttp.ClientSession()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection of a client."""
        try:
            far = await self._session.ws_connect(self._target, compress=0, max_msg_size=0)
        except aiohttp.ClientError:
            return web.Response(status=502)
        near: web.WebSocketResponse[Any] = web.WebSocketResponse(compress=False, max_msg_size=0, timeout=1)
        try:
            await near.prepare(request)
        except ConnectionError:  # the client did not wait
            await far.close()
            return near
        ways = {asyncio.create_task(self._carry(near, far)), asyncio.create_task(self._carry(far, near))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with suppress(ConnectionError, aiohttp.ClientError):
                await near.close(code=far.close_code or 1000)
                await far.close(code=near.close_code or 1000)
        return near

    async def close(self) -> None:
        await self._session.close()

    async def _carry(self, source: Socket, sink: Socket) -> None:
        held: deque[tuple[int, str]] = deque()
        """Frames that others overtake, and how many more may."""
        with suppress(ConnectionError, aiohttp.ClientError):
            while True:
                try:
                    message = await source.receive(HELD_S if held else None)
                except TimeoutError:
                    await self._let_go(sink, held, len(held))
                    continue
                if message.type is not WSMsgType.TEXT:
                    await self._let_go(sink, held, len(held))
                    return
                await self._pass_on(sink, message.data, held)

    async def _pass_on(self, sink: Socket, frame: str, held: deque[tuple[int, str]]) -> None:
        if self.reorders and self._rng.random() < SHARE:
            self.spoilt["reordered"] += 1
            held.append((self._rng.randint(1, MOST_OVERTAKEN), frame))
            return
        await sink.send_str(frame)
        if self.repeats and self._rng.random() < SHARE:
            self.spoilt["repeated"] += 1
            # At once, or when others have gone by.
            held.append((self._rng.randint(0, MOST_OVERTAKEN), frame))
        due = sum(left <= 1 for left, _ in held)
        waiting = sorted(((left - 1, one) for left, one in held), key=lambda each: each[0])
        held.clear()
        held.extend(waiting)
        await self._let_go(sink, held, due)

    async def _let_go(self, sink: Socket, held: deque[tuple[int, str]], count: int) -> None:
        for _ in range(count):
            await sink.send_str(held.popleft()[1])


@asynccontextmanager
async def middle(target: str, rng: random.Random) -> AsyncIterator[Middle]:
    """A middle that works."""
    made = Middle(target, rng)
    runner = web.AppRunner(_application(made), access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()
        await made.close()


def _application(made: Middle) -> web.Application:
    application = web.Application()
    application.router.add_get("/ws", made.serve)
    return application
