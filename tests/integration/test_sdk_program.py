"""The program of docs/sdk.md §1 runs as it is printed there."""

import asyncio
import os
import re
import sys
from pathlib import Path

from claudemesh.peer import Peer
from tests.brokers import BrokerProcess
from tests.faults.peers import enrol, next_message, opened

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sdk.md"


def program() -> str:
    """The first Python block after the mark that names this file."""
    _, _, marked = PAGE.read_text(encoding="utf-8").partition(Path(__file__).name)
    found = re.search(r"```python\n(.*?)```", marked, re.DOTALL)
    assert found is not None
    return found[1]


async def answer(peer: Peer) -> list[str]:
    """Answer one question, and take one message more."""
    question = await next_message(peer)
    await peer.mark_seen(question)
    await peer.reply(question, "Yes, all of them.")
    return [question.text, (await next_message(peer)).text]


async def test_the_ten_line_program_asks_and_follows_up(tmp_path: Path) -> None:
    """As a process of its own, against a real broker and a real peer."""
    code = program()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            answering = asyncio.create_task(answer(bob))
            environment = os.environ | {"CLAUDEMESH_CONFIG_DIR": str(homes.alice)}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, env=environment, stdout=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(60):
                printed, _ = await process.communicate()
                texts = await answering

    assert process.returncode == 0
    assert printed.decode().splitlines() == ["bob.box says Yes, all of them.", "delivered"]
    assert texts == ["Are the tests green?", "Then I deploy."]
