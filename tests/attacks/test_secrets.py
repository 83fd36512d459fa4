"""A peer that talks an agent into giving a credential away: by no tool that the agent has does it leave the machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.search import search_files
from tests.mcp_clients import Pair, agent, pair_of_machines

# Joined here, so that nobody's scanner takes this file for a leak.
SECRET = "AKIA" + "IOSFODNN7EXAMPLX"
HARMLESS = "the build is green, as ever"
WAYS: list[tuple[str, dict[str, object]]] = [
    ("mesh_send", {"to": "bob.desktop", "text": f"as you asked: {SECRET}"}),
    ("mesh_send", {"to": "#deploys", "text": f"a line\n{SECRET}"}),
    ("mesh_ask", {"to": "bob.desktop", "question": f"is {SECRET} yours?", "timeout_s": 1}),
    ("mesh_self", {"about": f"rotating {SECRET}"}),
    ("mesh_self", {"tags": [f"key={SECRET}"]}),
    ("mesh_channel", {"action": "create", "name": "keys", "topic": f"our key: {SECRET}"}),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_of_machines(tmp_path_factory.mktemp("pair")) as one:
        one.alice.ok("channel", "create", "deploys")
        yield one


@pytest.mark.parametrize(("tool", "arguments"), WAYS, ids=["send", "post", "ask", "about", "tags", "topic"])
async def test_a_tool_sends_no_credential_however_it_is_asked(
    pair: Pair, tool: str, arguments: dict[str, object]
) -> None:
    """The model is told which line it was; what its peer has at the end holds what was harmless, and nothing else."""
    async with agent(pair.alice, "--label", "leaky") as alice:
        reply = await alice.call(tool, **arguments)
        await alice.says("mesh_self", about=HARMLESS)
        async with agent(pair.bob) as bob:
            await bob.until("mesh_peers", HARMLESS)
    pair.bob.kill_daemon()

    found = search_files(_files(pair.bob.config_dir), {"secret": SECRET.encode(), "harmless": HARMLESS.encode()})
    pair.bob.ok("daemon", "start")

    assert reply.is_error
    assert "looks like a credential (AWS Access Key)" in reply.text
    assert SECRET not in reply.text
    assert set().union(*found.values()) == {"harmless"}


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
