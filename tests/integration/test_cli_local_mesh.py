"""One machine, no network: `up`, sessions of two terminals, a second directory, and the move to a real broker."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Machine, machine, start_broker, wait_until


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Machine]:
    """`up` was run once."""
    with machine(tmp_path, "alice") as one:
        one.ok("up", "--name", "alice", "--device", "laptop")
        yield one


def test_up_is_idempotent(alice: Machine) -> None:
    """The mesh is made once."""
    again = alice.ok("up")

    assert again["created"] is False
    assert again["mesh"]["alias"] == "local"
    assert again["broker_url"].startswith("unix://")
    assert len(alice.ok("mesh", "list")["meshes"]) == 1


def test_the_embedded_broker_is_up_again_after_a_restart(alice: Machine) -> None:
    """Also after kill -9: whoever used `up` does not have to remember it."""
    alice.kill_daemon()

    wait_until(lambda: alice.ok("mesh", "show")["mesh"]["link"] == "open", "the link is open")


def test_a_second_directory_joins_and_talks_without_a_network(alice: Machine, tmp_path: Path) -> None:
    """Another configuration directory of the same machine, over the Unix socket; the same cryptography."""
    link = alice.ok("invite")["link"]
    assert link.startswith("ic+unix://")
    with machine(tmp_path, "bob") as bob:
        bob.ok("join", "-", "--name", "bob", "--device", "terminal", stdin=link)

        bob.ok("send", "alice.laptop", "over the socket", "--wait", "delivered")

        assert [message["text"] for message in alice.inbox()] == ["over the socket"]


def test_two_terminals_talk_as_sessions(alice: Machine) -> None:
    """Each `watch --session` is a session with an address of its own, and is shown what is addressed to it."""
    api = alice.start("watch", "--session", "api", "--json")
    web = alice.start("watch", "--session", "web", "--json")
    assert json.loads(read_line(api))["watching"]["address"] == "alice.laptop/api"
    assert json.loads(read_line(web))["watching"]["address"] == "alice.laptop/web"

    alice.ok("send", "alice.laptop/web", "schema changed", "--as", "api")

    message = json.loads(read_line(web))["message"]
    assert message["text"] == "schema changed"
    assert message["sender"]["address"] == "alice.laptop/api"
    assert message["to_session"] == "web"
    alice.ok("send", message["sender"]["address"], "thanks", "--as", "web", "--reply-to", message["id"])
    assert json.loads(read_line(api))["message"]["text"] == "thanks"


def test_moving_to_a_real_broker_keeps_members_and_history(alice: Machine, tmp_path: Path) -> None:
    """The mesh, its peers and its log are the same; only the broker is another, and messages go on."""
    link = alice.ok("invite")["link"]
    with machine(tmp_path, "bob") as bob, start_broker(tmp_path) as broker:
        bob.ok("join", "-", "--name", "bob", "--device", "terminal", stdin=link)
        wait_until(lambda: len(alice.ok("peers")["peers"]) == 2, "bob is in")
        before = alice.ok("mesh", "show")

        moved = alice.ok("mesh", "move", "local", broker.url)

        after = alice.ok("mesh", "show")
        assert moved["from_url"].startswith("unix://")
        assert after["mesh"]["id"] == before["mesh"]["id"]
        assert after["mesh"]["broker_url"] == broker.url
        assert after["mesh"]["members"] == 2
        assert after["seq"] > before["seq"]
        wait_until(lambda: bob.ok("mesh", "show")["mesh"]["broker_url"] == broker.url, "bob followed")
        bob.ok("send", "alice.laptop", "from the new home", "--wait", "delivered")
        assert [message["text"] for message in alice.inbox()] == ["from the new home"]


@pytest.mark.parametrize(
    "option", [["--tag", "billing"], ["--mesh", "nowhere"], ["--label", "///"]], ids=lambda one: one[0]
)
def test_an_agent_is_not_started_under_words_that_its_hooks_would_fail_with(alice: Machine, option: list[str]) -> None:
    """A hook has nobody to tell: the agent would run, and nothing would ever reach it."""
    error = alice.fails("run", *option, "--", "touch", str(alice.home / "started"))

    assert error["took_effect"] == "nothing"
    assert not (alice.home / "started").exists()


def test_a_running_verb_imports_nothing_slow(alice: Machine) -> None:
    """A command speaks over a blocking socket; what it never needs it never loads."""
    slow = ("aiohttp", "asyncio", "claudemesh.crypto", "claudemesh.peer", "msgspec", "nacl", "rich", "sqlite3", "ssl")
    program = (
        "import sys\n"
        "from claudemesh.cli.main import main\n"
        "sys.argv = ['claudemesh', 'send', 'alice.laptop', 'to myself']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([one for one in {slow!r} if one in sys.modules])"
    )

    done = alice.run_python(program)

    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that a lasting command prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return line
