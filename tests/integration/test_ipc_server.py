"""The daemon's socket against clients that ask for too much, take nothing, or are too many (docs/spec/ipc.md §2)."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from claudemesh.daemon import ipc_server
from claudemesh.daemon.config_dir import PRIVATE_DIRECTORY
from claudemesh.daemon.ipc import LENGTH, MAX_FRAME_BYTES, Client, encode_frame
from claudemesh.daemon.ipc_server import MAX_CONNECTIONS, IpcServer, Operation, Reply
from claudemesh.daemon.schema.base import Answer, Args

MUCH = '"\\grün\U0001f600\n' * (MAX_FRAME_BYTES // 8)


class Much(Answer, frozen=True, kw_only=True):
    text: str


class Scene:
    """A server with one operation that answers more than a frame holds, and one that never stops telling."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "private" / "daemon.sock"
        self.path.parent.mkdir(PRIVATE_DIRECTORY)
        self.ended = asyncio.Event()
        operations = {"much": Operation(Args, self.much), "endless": Operation(Args, self.endless, follows=True)}
        self.server = IpcServer(self.path, operations)

    async def much(self, _: Args, __: Reply) -> Much:
        return Much(text=MUCH)

    async def endless(self, _: Args, reply: Reply) -> Much:
        try:
            while True:
                await reply.event(Much(text="x" * 65_536))
        finally:
            self.ended.set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def ask(self, op: str) -> Any:
        """The answer to one request on a connection of its own; None when the server hangs up."""
        reader, writer = await self.connect()
        try:
            writer.write(encode_frame({"v": 1, "version": ipc_server.__version__, "op": op, "args": {}}))
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            return json.loads(await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            writer.close()


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """One server, stopped at the end."""
    one = Scene(tmp_path)
    await one.server.start()
    yield one
    await one.server.stop()
    await one.server.hang_up()


async def test_an_answer_larger_than_a_frame_comes_in_parts(scene: Scene) -> None:
    """How many peers, channels or entries there are is for others to say: no number of them hides the rest."""

    def ask() -> Any:
        with Client(scene.path, 60) as client:
            return [client.call("much", {}), client.call("much", {})]

    answers = await asyncio.to_thread(ask)

    assert answers == [{"text": MUCH}] * 2


async def test_a_reader_that_takes_nothing_is_dropped(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it follows ends with it, and no more than the buffers of its connection is kept for it."""
    monkeypatch.setattr(ipc_server, "WRITE_TIMEOUT_S", 0.1)
    _, writer = await scene.connect()
    writer.write(encode_frame({"v": 1, "version": ipc_server.__version__, "op": "endless", "args": {}}))

    async with asyncio.timeout(60):
        await scene.ended.wait()

    assert (await scene.ask("nothing of ours"))["error"]["code"] == "usage"
    writer.close()


async def test_more_connections_than_are_served_are_hung_up(scene: Scene) -> None:
    """Whoever is connected stays, and there is room again when somebody leaves."""
    held = [await scene.connect() for _ in range(MAX_CONNECTIONS)]
    refused = await scene.ask("nothing of ours")
    held.pop()[1].close()
    async with asyncio.timeout(60):
        while (served := await scene.ask("nothing of ours")) is None:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0)

    assert refused is None
    assert served["error"]["code"] == "usage"
    for _, writer in held:
        writer.close()
