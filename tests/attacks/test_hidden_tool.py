"""The tool that hooks call and no model is told of: a model that was told of it by a peer gets nothing by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh.daemon.ipc import Client
from tests.mcp_clients import Pair, agent, pair_of_machines

HOOK = {"host": "claude-code", "event": "UserPromptSubmit", "session_id": "its-own-id"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two machines in one mesh; at Bob's, one session of Claude Code has something to read."""
    with pair_of_machines(tmp_path) as one, Client(one.bob.config_dir / "daemon.sock", 60) as client:
        client.call("agent.open", {"host": "claude-code", "key": HOOK["session_id"], "label": "coder"})
        yield one


@pytest.mark.parametrize("host", ["codex", "gemini", "opencode", "mcp"])
async def test_a_session_of_another_host_cannot_pass_for_it(pair: Pair, host: str) -> None:
    """It would take over the session that it names, with what waits for that one, and state what it has read."""
    async with agent(pair.bob, "--host", host) as tempted:
        message_id = pair.send("for the coder alone", to="bob.desktop/coder")
        answers = [await tempted.call("mesh_hook", **HOOK) for _ in range(2)]
        answers.append(await tempted.call("mesh_inbox"))

    assert "for the coder alone" not in "".join(one.text for one in answers)
    assert [one.is_error for one in answers] == [True, True, False]
    assert pair.stages(message_id) == []
