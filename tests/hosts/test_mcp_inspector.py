"""The official MCP inspector against `claudemesh mcp` and `claudemesh mcp http`, in both eras of the protocol."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hosts import lab
from tests.mcp_clients import Pair, pair_of_machines
from tests.mcp_http import http_server

WAYS = [(transport, era) for transport in ("stdio", "http") for era in ("legacy", "modern")]
READING = [("mesh_peers",), ("mesh_self",), ("mesh_channel", "action=list")]
TOOL_FAILED = 5
"""The inspector's exit code for a tool whose answer is an error."""


class Inspector(NamedTuple):
    """The inspector, set up for our servers."""

    pair: Pair
    settings: Path
    home: Path
    transport: str
    era: str

    def run(self, method: str, *words: str) -> tuple[int, Any]:
        """Its exit code, and what it printed: the result, or what it says of the failure."""
        done = lab.run(
            "inspector",
            *("--cli", "--config", str(self.settings), "--server", self.transport, "--protocol-era", self.era),
            *("--quiet", "--format", "json", "--method", method, *words),
            home=self.home,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def ok(self, method: str, *words: str) -> Any:
        """The result of what must succeed."""
        code, result = self.run(method, *words)
        assert code == 0, result
        return result.get("result", result)

    def tool(self, name: str, *arguments: str) -> tuple[int, str]:
        """The exit code, and the text that a model would read."""
        words = [word for argument in arguments for word in ("--tool-arg", argument)]
        code, result = self.run("tools/call", "--tool-name", name, *words)
        if isinstance(result, str):
            return code, result
        (content,) = result.get("result", result)["content"]
        return code, content["text"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, Path]]:
    """Two machines in one mesh, and the inspector's file of servers at Bob's."""
    directory = tmp_path_factory.mktemp("pair")
    with pair_of_machines(directory) as pair, http_server(pair.bob) as server:
        command, *words = pair.bob.command("mcp", "--label", "pipe")
        pipe = {"command": command, "args": words, "env": pair.bob.environment}
        http = {"type": "http", "url": f"{server.url}?label=web", "headers": server.bearer()}
        file = directory / "servers.json"
        file.write_text(json.dumps({"mcpServers": {"stdio": pipe, "http": http}}))
        yield pair, file


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def inspector(settings: tuple[Pair, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Inspector:
    """By one transport, in one era."""
    return Inspector(*settings, tmp_path, *request.param)


def test_tools_are_listed_with_schemas_that_are_portable(inspector: Inspector) -> None:
    """The six, with what a model needs to call them; `--strict` finds nothing that a host would stumble over."""
    tools = {one["name"]: one for one in inspector.ok("tools/list", "--strict")["tools"]}

    assert list(tools) == ["mesh_peers", "mesh_send", "mesh_ask", "mesh_inbox", "mesh_channel", "mesh_self"]
    assert tools["mesh_send"]["inputSchema"]["required"] == ["to", "text"]
    assert tools["mesh_send"]["inputSchema"]["additionalProperties"] is False
    assert tools["mesh_peers"]["annotations"]["readOnlyHint"] is True


def test_what_changes_nothing_can_be_called(inspector: Inspector) -> None:
    """Who is there, who one is, which channels there are, and a message that waits."""
    text = f"hello by {inspector.transport}, {inspector.era}"
    message = inspector.pair.send(text)

    peers, myself, channels = (inspector.tool(*call) for call in READING)
    shown = inspector.tool("mesh_inbox")

    assert {code for code, _ in (peers, myself, channels, shown)} == {0}
    assert "alice.laptop: online; another user" in peers[1]
    assert myself[1].startswith("bob.desktop/")
    assert "in mesh team: connected" in myself[1]
    assert myself[1].endswith("1 unread message: mesh_inbox()")
    assert "channel" in channels[1].lower()
    assert f"--- message {message}\n" in shown[1]
    assert f"\n| {text}\n" in shown[1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("mesh_send", "to=alice"), "missing required field `text`. It takes: to, text,"),
        (("mesh_self", "nonsense=1"), "unknown field `nonsense`. It takes: about, status, tags."),
        (("mesh_send", "to=nobody-there", "text=hi"), "mesh_peers lists who is there"),
    ],
    ids=["missing", "extra", "unknown-address"],
)
def test_a_call_that_cannot_be_is_told_what_would(inspector: Inspector, call: tuple[str, ...], said: str) -> None:
    """The model reads what it has to change, and that nothing happened."""
    code, text = inspector.tool(*call)

    assert code == TOOL_FAILED
    assert said in text
    assert "Nothing was" in text


def test_an_unknown_tool_is_none(inspector: Inspector) -> None:
    """The inspector looks it up in our list, and does not find it."""
    code, said = inspector.tool("mesh_nonsense")

    assert code == TOOL_FAILED
    assert "mesh_nonsense" in said


def test_resources_are_listed_and_read(inspector: Inspector) -> None:
    """Each of them, and the template; a resource that does not exist is an error that names those that do."""
    listed = [one["uri"] for one in inspector.ok("resources/list")["resources"]]
    templates = [one["uriTemplate"] for one in inspector.ok("resources/templates/list")["resourceTemplates"]]
    (peers,) = inspector.ok("resources/read", "--uri", "mesh://peers")["contents"]
    (conversation,) = inspector.ok("resources/read", "--uri", "mesh://conversation/alice.laptop")["contents"]
    code, said = inspector.run("resources/read", "--uri", "mesh://nonsense")

    assert listed == ["mesh://inbox", "mesh://peers", "mesh://conversation/alice.laptop"]
    assert templates == ["mesh://conversation/{peer}"]
    assert peers["mimeType"] == "text/plain"
    assert "alice.laptop: online" in peers["text"]
    assert "alice.laptop" in conversation["text"]
    assert code != 0
    assert "there is no such resource; see mesh://inbox and mesh://peers" in said


def test_prompts_are_listed_and_filled_in(inspector: Inspector) -> None:
    """With their arguments; one that is missing is named."""
    listed = {one["name"]: one.get("arguments", []) for one in inspector.ok("prompts/list")["prompts"]}
    words = ("--prompt-name", "send", "--prompt-args", "peer=alice", "text=good morning")
    (message,) = inspector.ok("prompts/get", *words)["messages"]
    code, said = inspector.run("prompts/get", "--prompt-name", "send")

    assert list(listed) == ["inbox", "peers", "send", "conversation"]
    assert [one["name"] for one in listed["send"]] == ["peer", "text"]
    assert message["role"] == "user"
    assert message["content"]["text"].startswith("Send alice this message")
    assert '"good morning"' in message["content"]["text"]
    assert code != 0
    assert "the prompt send needs peer, text" in said
