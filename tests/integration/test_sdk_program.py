"""The programs of docs/sdk.md §1 and of the README run as they are printed there."""

import asyncio
import os
import re
import sys
from pathlib import Path

from claudemesh.peer import Peer
from tests.brokers import BrokerProcess
from tests.faults.peers import enrol, next_message, opened

ROOT = Path(__file__).resolve().parents[2]


def program(page: str, mark: str) -> str:
    """The first Python block of a page after a mark."""
    _, _, marked = (ROOT / page).read_text(encoding="utf-8").partition(mark)
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
    code = program("docs/sdk.md", Path(__file__).name)
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


async def test_the_program_of_the_readme_sends_and_prints_what_comes(tmp_path: Path) -> None:
    """Likewise; it goes on until it is stopped."""
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-u", "-c", program("README.md", "In your own program")),
                env=os.environ | {"CLAUDEMESH_CONFIG_DIR": str(homes.alice)},
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(60):
                    said = await next_message(bob)
                    await bob.reply(said, "thank you")
                    assert process.stdout is not None
                    printed = await process.stdout.readline()
            finally:
                process.kill()
                await process.wait()

    assert said.text == "the build is green"
    assert printed == b"bob.box thank you\n"
