"""Codex and Gemini CLI, the real programs: what their models are shown, and a ring of all four hosts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hosts.claude import Claude
from tests.hosts.conftest import Mesh
from tests.hosts.others import Headless
from tests.hosts.sessions import KINDS, Session
from tests.hosts.simulated_anthropic import last_tool_result, simulated_anthropic
from tests.hosts.simulated_gemini import last_function_response, simulated_gemini
from tests.hosts.simulated_models import Block, Body, Call, Say, Script, SimulatedModels, strings
from tests.hosts.simulated_openai import last_tool_output, simulated_openai
from tests.processes import machine, start_broker, wait_until

TRUSTED = "--dangerously-bypass-hook-trust"
"""Stands for a user who has trusted the hooks by `/hooks`, which is a screen of Codex's own."""


@pytest.fixture
def openai() -> Iterator[SimulatedModels]:
    """Models that answer every request with its number."""
    found = simulated_openai(**{"*": lambda _body, number: [Say(f"reply {number}")]})
    yield found
    found.close()
    assert not found.errors


@pytest.fixture
def gemini() -> Iterator[SimulatedModels]:
    """A model that answers every request with its number."""
    found = simulated_gemini(lambda _body, number: [Say(f"reply {number}")])
    yield found
    found.close()
    assert not found.errors


def test_codex_is_shown_what_is_unread_once(mesh: Mesh, openai: SimulatedModels) -> None:
    """With trusted hooks: in its first request, and `read` at the end of the turn."""
    codex = Headless(mesh.bob, "codex", openai.url)
    codex.set_up()
    message_id = mesh.send("the build is green")

    codex.ask("hello", TRUSTED)
    codex.ask("hello again", TRUSTED)

    shown = [request.text.count("| the build is green") for request in openai.of("codex")]
    assert shown[0] == 1
    assert sum(shown) == 1
    mesh.wait_for_stages(message_id, ["offered", "read"])


GOES_ON = {"codex": ("resume", "--last"), "gemini": ("--resume", "latest")}


@pytest.mark.parametrize("name", GOES_ON)
def test_a_conversation_that_goes_on_in_another_process_has_a_message_once(mesh: Mesh, name: str) -> None:
    """From its own record, if at all: Gemini CLI forgets the first prompt. What came meanwhile is shown once."""
    models = KINDS[name].models(name, lambda _body, number: [Say(f"reply {number}")])
    host, trusted = Headless(mesh.bob, name, models.url), (TRUSTED,) if name == "codex" else ()
    host.set_up()
    first = mesh.send("the build is green")
    host.ask("hello", *trusted)
    mesh.wait_for_stages(first, ["offered", "read"])

    second = mesh.send("and the tests are")
    host.ask("go on", *trusted, *GOES_ON[name])

    shown = [(one.text.count("| the build is green"), one.text.count("| and the tests are")) for one in models.requests]
    assert shown[0] == (1, 0)
    assert all(count <= 1 for counts in shown for count in counts)
    assert shown[-1][1] == 1
    mesh.wait_for_stages(second, ["offered", "read"])
    models.close()


def test_untrusted_hooks_of_codex_are_reported_and_lose_nothing(mesh: Mesh, openai: SimulatedModels) -> None:
    """Codex skips them in silence; `doctor` does not, and the message stays unread."""
    codex = Headless(mesh.bob, "codex", openai.url)
    codex.set_up()
    message_id = mesh.send("the build is green")

    codex.ask("hello")

    assert "| the build is green" not in openai.of("codex")[0].text
    assert "trust them by /hooks" in codex.doctor()
    assert "read" not in mesh.stages(message_id)


def test_what_codex_is_called_by_says_that_its_user_did_not_write_it(mesh: Mesh) -> None:
    """It looks like a prompt there, and holds nothing of the message, which a hook adds."""
    session = Session("codex", mesh)
    try:
        session.begin()
        message_id = mesh.send("is the build green?", to=session.address)
        called = session.wait_for_requests(2)[1]
        mesh.wait_for_stages(message_id, ["offered", "read"])
    finally:
        session.close()

    assert called.text.count("| is the build green?") == 1
    assert "Your user did not write this" in called.text


def test_gemini_is_shown_what_is_unread(mesh: Mesh, gemini: SimulatedModels) -> None:
    """In its first request, and `read` at the end of the turn."""
    host = Headless(mesh.bob, "gemini", gemini.url)
    host.set_up()
    message_id = mesh.send("the build is green")

    host.ask("hello")

    assert gemini.requests[0].text.count("| the build is green") == 1
    mesh.wait_for_stages(message_id, ["offered", "read"])


def test_an_interactive_gemini_is_one_session(mesh: Mesh, gemini: SimulatedModels) -> None:
    """Its hook tells of it before its server is there, which is told no id of the session: the process joins them."""
    gemini.scripts["gemini"] = lambda _body, number: [
        Call("mcp_claudemesh_mesh_self", {}) if number == 0 else Say(f"reply {number}")
    ]
    host = Headless(mesh.bob, "gemini", gemini.url)
    host.set_up()
    terminal = host.open("-m", "gemini-2.5-flash", "--approval-mode", "yolo", "-i", "who are you?")
    try:
        wait_until(lambda: len(gemini.requests) == 2, "our server has answered")
        wait_until(lambda: labels_of_bob(mesh), "what it is called has arrived")
        labels = labels_of_bob(mesh)
    finally:
        terminal.close()

    assert labels == ["gemini"]
    assert "bob.desktop/gemini" in last_function_response(gemini.requests[1].body)


def labels_of_bob(mesh: Mesh) -> list[str]:
    """How Alice sees Bob's sessions."""
    (bob,) = [one for one in mesh.alice.ok("peers")["peers"] if one["address"] == "bob.desktop"]
    return [one["label"] for one in bob["sessions"] if one["label"]]


def test_a_message_goes_round_all_four_hosts(tmp_path: Path) -> None:
    """Claude Code → Codex → Gemini CLI → opencode → Claude Code; each adds its name."""
    order = ["claude", "codex", "gemini", "opencode"]
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        machines = {name: stack.enter_context(machine(tmp_path, name)) for name in order}
        first = machines["claude"]
        first.ok("mesh", "create", "team", "--broker", broker.url, "--name", "claude", "--device", "box")
        link = first.ok("invite", "--uses", "3")["link"]
        for name in order[1:]:
            machines[name].ok("join", "-", "--name", name, "--device", "box", stdin=link)
        for one in machines.values():
            wait_until(lambda one=one: len(one.ok("peers")["peers"]) == 4, "everybody is known")  # type: ignore[misc]
        anthropic = simulated_anthropic(claude=_starts("mcp__claudemesh__mesh_", "codex.box"))
        openai = simulated_openai(
            codex=_passes_on("mesh_", "gemini.box", "codex", last_tool_output, "mcp__claudemesh"),
            opencode=_passes_on("claudemesh_mesh_", "claude.box", "opencode", last_tool_output),
        )
        gemini = simulated_gemini(_passes_on("mcp_claudemesh_mesh_", "opencode.box", "gemini", last_function_response))
        for server in (anthropic, openai, gemini):
            stack.callback(server.close)
        hosts = [
            Headless(machines["codex"], "codex", openai.url),
            Headless(machines["gemini"], "gemini", gemini.url),
            Headless(machines["opencode"], "opencode", openai.url),
        ]
        for host in hosts:
            host.set_up()
        claude = Claude.on(first, anthropic, "claude")
        claude.set_up()
        started = claude.ask("begin")
        for host in hosts:
            host.ask("go on")
        ended = claude.ask("what came?")

        errors = anthropic.errors + openai.errors + gemini.errors
        assert not errors
        assert started.exit_code == 0
        assert "| claude+codex+gemini+opencode" in ended.stdout


def _starts(tools: str, to: str) -> Script:
    """Sends in its first run, and reads in its second."""

    def script(body: Body, number: int) -> list[Block]:
        if number == 0:
            return [Call(f"{tools}send", {"to": to, "text": "claude"})]
        if number == 1:
            return [Say("sent")]
        if number == 2:
            return [Call(f"{tools}inbox", {})]
        return [Say(last_tool_result(body) + "\n".join(one for one in _bodies(body)))]

    return script


def _passes_on(tools: str, to: str, name: str, result: Callable[[Body], str], namespace: str = "") -> Script:
    """Reads what came, and sends it on with its own name."""

    def script(body: Body, number: int) -> list[Block]:
        if number == 0:
            return [Call(f"{tools}inbox", {}, namespace)]
        if number == 1:
            came = [line for line in [*result(body).splitlines(), *_bodies(body)] if line.startswith("| claude")]
            return [Call(f"{tools}send", {"to": to, "text": came[0][2:].strip() + "+" + name}, namespace)]
        return [Say("done")]

    return script


def _bodies(body: Body) -> list[str]:
    """The lines of peers' messages anywhere in a request: a hook may have shown one before the tool was asked."""
    return [line for text in strings(body) for line in text.splitlines() if line.startswith("| ")]
