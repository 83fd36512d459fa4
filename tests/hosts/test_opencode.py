"""opencode, the real program: when a message reaches its model's requests, how often, and what its sender learns."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from claudemesh.daemon.ipc import encode_frame
from claudemesh.hosts.opencode import PLUGIN
from tests.attacks.other_users import open_directory, socket_of_another_user
from tests.hosts import lab
from tests.hosts.conftest import Mesh
from tests.hosts.others import Headless
from tests.hosts.simulated_models import Block, Body, Call, Request, Say, SimulatedModels
from tests.hosts.simulated_openai import last_tool_output, simulated_openai
from tests.hosts.terminal import Terminal
from tests.processes import wait_until

SEND, INBOX = "claudemesh_mesh_send", "claudemesh_mesh_inbox"
THINKS_AT_MOST_S = 60
WITHIN_S = 60
TOOL = Call("bash", {"command": "true", "description": "nothing"})


@pytest.fixture
def models() -> Iterator[SimulatedModels]:
    """A simulated model that answers every request with its number, unless a test gives it a script."""
    found = simulated_openai(opencode=lambda _body, number: [Say(f"reply {number}")])
    yield found
    found.close()
    assert not found.errors


@pytest.fixture
def host(mesh: Mesh, models: SimulatedModels) -> Headless:
    """Bob's opencode, with claudemesh set up."""
    found = Headless(mesh.bob, "opencode", models.url)
    found.set_up()
    return found


@pytest.fixture
def terminal(host: Headless) -> Iterator[Terminal]:
    """A session of it on a screen, before its first prompt."""
    found = host.open()
    found.wait_for("Ask anything", WITHIN_S)
    yield found
    found.close()


def wait_for_requests(models: SimulatedModels, count: int) -> list[Request]:
    """The model's requests, once there are so many."""
    wait_until(lambda: len(models.of("opencode")) >= count, f"{count} requests", WITHIN_S)
    return models.of("opencode")


def shown(models: SimulatedModels, body: str) -> list[int]:
    """How often a message stands in each request."""
    return [request.text.count(f"| {body}") for request in models.of("opencode")]


def sessions(mesh: Mesh) -> dict[str, str]:
    """How each session of Bob's is reached, as Alice sees it."""
    (bob,) = [one for one in mesh.alice.ok("peers")["peers"] if one["address"] == "bob.desktop"]
    return {str(one["label"]): str(one["reach"]) for one in bob["sessions"] if one["label"]}


def first_turn(terminal: Terminal, mesh: Mesh) -> None:
    """A session is there from its first prompt on."""
    terminal.type("hello")
    terminal.wait_for("reply 0", WITHIN_S)
    wait_until(lambda: sessions(mesh) == {"opencode": "wakeable"}, f"it can be woken: {sessions(mesh)}")


def test_what_is_unread_comes_with_the_first_prompt_and_once(
    mesh: Mesh, models: SimulatedModels, host: Headless
) -> None:
    """Also in a headless run, which ends as ever; a run that goes on with the conversation has it from there."""
    message_id = mesh.send("remember the milk")

    host.ask("hello")
    mesh.wait_for_stages(message_id, ["offered", "read"])
    host.ask("go on", "--continue")

    assert shown(models, "remember the milk") == [1, 1]
    assert "--- message" not in host.ask("something else")[0]
    assert shown(models, "remember the milk") == [1, 1, 0]


def test_without_our_plugin_a_message_comes_when_the_agent_asks(
    mesh: Mesh, models: SimulatedModels, host: Headless
) -> None:
    """By the tool; the answer that carried it is the evidence."""
    models.scripts["opencode"] = lambda _body, number: [Call(INBOX, {})] if number == 0 else [Say("done")]
    message_id = mesh.send("the build is green")

    host.ask("hello", "--pure")

    asking, asked = models.of("opencode")
    assert "| the build is green" not in asking.text
    assert "| the build is green" in last_tool_output(asked.body)
    mesh.wait_for_stages(message_id, ["offered", "read"])


def test_a_message_is_shown_once_across_rungs(mesh: Mesh, models: SimulatedModels, terminal: Terminal) -> None:
    """Woken by it, asking for what there is, prompted after it: it stands in the conversation once."""
    models.scripts["opencode"] = lambda _body, number: (
        [Call(INBOX, {})] if number in (1, 3) else [Say(f"reply {number}")]
    )
    first_turn(terminal, mesh)
    mesh.send("the disk is full", to="bob.desktop/opencode")
    terminal.wait_for("reply 2", WITHIN_S)
    terminal.type("and now?")
    terminal.wait_for("reply 4", WITHIN_S)

    assert shown(models, "the disk is full") == [0, 1, 1, 1, 1]


def test_a_daemon_killed_between_offer_and_read_says_nothing_false(
    mesh: Mesh, models: SimulatedModels, terminal: Terminal
) -> None:
    """The session goes on; what it was shown is read once its model has answered, and is not shown again."""
    goes_on = threading.Event()

    def script(_body: Body, number: int) -> list[Block]:
        if number == 1:
            assert goes_on.wait(THINKS_AT_MOST_S)
        return [Say(f"reply {number}")]

    models.scripts["opencode"] = script
    first_turn(terminal, mesh)
    message_id = mesh.send("the disk is full", to="bob.desktop/opencode")
    wait_for_requests(models, 2)
    mesh.wait_for_stages(message_id, ["offered"])
    mesh.bob.kill_daemon()
    mesh.bob.ok("daemon", "start")
    assert mesh.stages(message_id) == ["offered"]
    wait_until(lambda: sessions(mesh) == {"opencode": "wakeable"}, f"it is back: {sessions(mesh)}")
    goes_on.set()

    mesh.wait_for_stages(message_id, ["offered", "read"])
    second = mesh.alice.ok("send", "bob.desktop/opencode", "it was cleared")["id"]
    mesh.wait_for_stages(second, ["offered", "read"])
    assert shown(models, "the disk is full") == [0, 1, 1]
    assert shown(models, "it was cleared") == [0, 0, 1]


def test_a_session_killed_before_its_model_answered_gives_no_false_read(
    mesh: Mesh, models: SimulatedModels, host: Headless, terminal: Terminal
) -> None:
    """The conversation that goes on has the message from its own record, once; then it is read."""
    asked = threading.Event()

    def script(_body: Body, number: int) -> list[Block]:
        if number == 1:
            asked.set()
            threading.Event().wait(THINKS_AT_MOST_S)
        return [Say(f"reply {number}")]

    models.scripts["opencode"] = script
    first_turn(terminal, mesh)
    message_id = mesh.send("the disk is full", to="bob.desktop/opencode")
    assert asked.wait(WITHIN_S)
    mesh.wait_for_stages(message_id, ["offered"])
    os.kill(terminal.process(), signal.SIGKILL)
    wait_until(lambda: sessions(mesh) == {}, "it has left")
    assert mesh.stages(message_id) == ["offered"]
    host.ask("go on", "--continue")

    assert shown(models, "the disk is full")[-1] == 1
    mesh.wait_for_stages(message_id, ["offered", "read"])


def test_a_session_whose_user_stopped_it_is_left_alone(mesh: Mesh, models: SimulatedModels, terminal: Terminal) -> None:
    """Until that user prompts it: then it has what came."""
    asked, goes_on = threading.Event(), threading.Event()

    def script(_body: Body, number: int) -> list[Block]:
        if number == 1:
            asked.set()
            goes_on.wait(THINKS_AT_MOST_S)
        return [Say(f"reply {number}")]

    models.scripts["opencode"] = script
    first_turn(terminal, mesh)
    terminal.type("work on it")
    assert asked.wait(WITHIN_S)
    message_id = mesh.send("when you are done, rebase", to="bob.desktop/opencode")
    terminal.press("Escape")
    terminal.wait_for("again to interrupt", WITHIN_S)
    terminal.press("Escape")
    terminal.wait_for("interrupted", WITHIN_S)
    goes_on.set()
    assert mesh.stages(message_id) == []
    terminal.type("something else")
    terminal.wait_for("reply 2", WITHIN_S)

    assert shown(models, "when you are done, rebase") == [0, 0, 1]
    assert "Your user did not write this" not in models.of("opencode")[2].text
    mesh.wait_for_stages(message_id, ["offered", "read"])


def test_two_sessions_in_one_directory_are_told_apart(
    mesh: Mesh, models: SimulatedModels, host: Headless, terminal: Terminal
) -> None:
    """Each is woken by what is addressed to it alone, and its tools speak for it alone."""
    labels, names = ["opencode", "opencode-2"], ["first", "second"]

    def script(body: Body, number: int) -> list[Block]:
        text = models.of("opencode")[-1].text
        mine = next(name for name in names if f"I am the {name}" in text)
        if "| who are you?" in text and body["messages"][-1]["role"] != "tool":
            return [Call(SEND, {"to": "alice.laptop", "text": mine})]
        return [Say(f"reply of {mine}")]

    models.scripts["opencode"] = script
    other = host.open_by([str(lab.program("opencode"))], "second")
    try:
        other.wait_for("Ask anything", WITHIN_S)
        for screen, name in ((terminal, "first"), (other, "second")):
            screen.type(f"I am the {name}")
            screen.wait_for(f"reply of {name}", WITHIN_S)
        wait_until(lambda: sorted(sessions(mesh)) == labels, f"both are there: {sessions(mesh)}")
        for number, label in enumerate(labels, 1):
            mesh.send("who are you?", to=f"bob.desktop/{label}")
            wait_until(lambda number=number: len(told(mesh)) == number, f"{label} answers", WITHIN_S)  # type: ignore[misc]
            assert list(told(mesh).values())[-1] == label
    finally:
        other.close()

    assert sorted(told(mesh)) == names


def told(mesh: Mesh) -> dict[str, str]:
    """What Alice was sent, and by which session."""
    return {str(one["text"]): str(one["sender"]["session"]) for one in mesh.alice.inbox("--all")}


def test_an_agent_can_be_started_without_any_setup(mesh: Mesh, models: SimulatedModels) -> None:
    """`claudemesh run` gives server and plugin for this one run, and a name."""
    host = Headless(mesh.bob, "opencode", models.url)
    terminal = host.open_by(mesh.bob.command("run", "--label", "payments", "--", "opencode"))
    try:
        terminal.wait_for("Ask anything", WITHIN_S)
        terminal.type("hello")
        terminal.wait_for("reply 0", WITHIN_S)
        wait_until(lambda: sessions(mesh) == {"payments": "wakeable"}, f"it can be woken: {sessions(mesh)}")
        message_id = mesh.send("is the build green?", to="bob.desktop/payments")
        mesh.wait_for_stages(message_id, ["offered", "read"])
    finally:
        terminal.close()

    assert shown(models, "is the build green?") == [0, 1]


def test_without_a_daemon_the_session_works_as_ever(models: SimulatedModels, mesh: Mesh, host: Headless) -> None:
    """Nothing of ours is there but the plugin."""
    mesh.bob.kill_daemon()
    settings = host.machine.home / ".config" / "opencode" / "opencode.json"
    settings.write_text(settings.read_text().replace('"enabled": true', '"enabled": false'))

    stdout, _ = host.ask("hello")

    assert "reply 0" in stdout


def test_uninstall_gives_back_every_byte(models: SimulatedModels, mesh: Mesh) -> None:
    """After the real program has used what was installed."""
    host = Headless(mesh.bob, "opencode", models.url)
    directory = host.machine.home / ".config" / "opencode"
    before = (directory / "opencode.json").read_bytes()
    host.set_up()
    host.ask("hello")
    between = (directory / "opencode.json").read_bytes()

    mesh.bob.ok("uninstall", "opencode")

    assert between != before
    assert (directory / "opencode.json").read_bytes() == before
    assert not (directory / "plugin").exists()


PLUGIN_MEETS = """
import { Claudemesh } from %(plugin)s
setInterval(() => {}, 1000) // its sockets keep nobody alive
const client = { session: { get: async () => ({ data: {} }), messages: async () => ({ data: [] }) } }
const hooks = await Claudemesh({ client, directory: %(directory)s })
const model = { providerID: "p", modelID: "m" }
const said = { message: { id: "m", sessionID: "s", agent: "a", model }, parts: [{ id: "1" }] }
await hooks["chat.message"]({ sessionID: "s" }, said)
console.log(JSON.stringify(said.parts))
process.exit()
"""


@pytest.mark.parametrize("is_theirs", [False, True], ids=["ours", "another user's"])
def test_only_a_daemon_of_its_own_user_puts_words_before_the_model(tmp_path: Path, is_theirs: bool) -> None:
    """Another one may listen where ours did before it was killed, if its directory was too deep for a socket."""
    (tmp_path / "plugin.mjs").write_bytes(PLUGIN.read_bytes())
    given = {"plugin": json.dumps(str(tmp_path / "plugin.mjs")), "directory": json.dumps(str(tmp_path))}
    (tmp_path / "meets.mjs").write_text(PLUGIN_MEETS % given)
    with open_directory() as directory, ExitStack() as stack:
        path = directory / "claudemesh-0" / "c0ffee.daemon"
        listening = stack.enter_context(socket_of_another_user(path) if is_theirs else socket_of_ours(path))
        (tmp_path / "daemon.json").write_text(json.dumps({"socket": str(path), "version": "0"}))
        threading.Thread(target=say_to_whoever_asks, args=(listening, "obey"), daemon=True).start()
        done = lab.run("node", str(tmp_path / "meets.mjs"), home=tmp_path, CLAUDEMESH_CONFIG_DIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert ("obey" in done.stdout) is not is_theirs


@contextmanager
def socket_of_ours(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


def say_to_whoever_asks(listener: socket.socket, text: str) -> None:
    """As the daemon answers a hook."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.sendall(encode_frame({"ok": {}}) + encode_frame({"stdout": text, "stderr": "", "exit_code": 0}))
