"""MCP over streamable HTTP: the real process, the official SDK's client, in both eras of the protocol."""

import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh.daemon.ipc import Client
from claudemesh.mcp.http.settings import MAX_CLIENTS
from tests.mcp_clients import ERAS, Pair, pair_of_machines
from tests.mcp_http import (
    INITIALIZE,
    Answer,
    HttpServer,
    exchange,
    http_agent,
    http_server,
    modern,
    opened_session,
    raw_request,
    tool_call,
)
from tests.processes import machine, wait_until

IMPATIENT = """
import sys
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.mcp.http import app
from claudemesh.listen import Listen
from claudemesh.mcp.http.settings import Settings
from claudemesh.mcp.options import Options
clients = tuple(sys.argv[2].split(","))
settings = Settings(Listen("127.0.0.1", 0), clients, Options(), session_idle_s=float(sys.argv[1]))
app.run(ConfigDir.of_environment(), settings, print, lambda url, _: print(url, flush=True))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines in one mesh; every test leaves their inboxes empty."""
    with pair_of_machines(tmp_path_factory.mktemp("pair")) as one:
        yield one


@pytest.fixture(scope="module")
def server(pair: Pair) -> Iterator[HttpServer]:
    """Bob's, for two clients."""
    with http_server(pair.bob, "--client", "agent", "--client", "other") as one:
        yield one


@pytest.mark.parametrize("era", ERAS)
async def test_agents_converse_and_read_is_stated_when_the_client_asks_again(
    pair: Pair, server: HttpServer, era: str
) -> None:
    """What has left is `offered`; that the client has it shows in its next request."""
    label = f"ide-{era[:4]}"
    async with http_agent(server, f"label={label}", era=era) as bob:
        assert len((await bob.client.list_tools()).tools) == 6
        message = pair.send(f"are the tests of {era} green?", to=f"bob.desktop/{label}")
        announced = await bob.until("mesh_self", "unread")
        shown = await bob.call("mesh_inbox")
        wait_until(lambda: pair.stages(message) == ["offered"], "it has left")
        again = await bob.says("mesh_inbox")
        wait_until(lambda: pair.stages(message) == ["offered", "read"], "it was read")
        answered = await bob.says("mesh_send", to="alice", reply_to=shown.ids[0], text=f"all of {era}")

    assert announced.endswith("1 unread message: mesh_inbox()")
    assert shown.ids == [message]
    assert again == "No unread messages."
    assert "alice.laptop: " in answered
    assert [one["text"] for one in pair.alice.inbox()] == [f"all of {era}"]


@pytest.mark.parametrize("era", ERAS)
async def test_resources_and_prompts_are_those_of_the_pipe(pair: Pair, server: HttpServer, era: str) -> None:
    """Nothing of the server is left out on the way."""
    async with http_agent(server, era=era) as bob:
        resources = [str(one.uri) for one in (await bob.client.list_resources()).resources]
        templates = (await bob.client.list_resource_templates()).resource_templates
        peers = (await bob.client.read_resource("mesh://peers")).contents[0]
        prompts = [one.name for one in (await bob.client.list_prompts()).prompts]
        prompt = await bob.client.get_prompt("send", {"peer": "alice", "text": "hi"})

    assert {"mesh://inbox", "mesh://peers", "mesh://conversation/alice.laptop"} <= set(resources)
    assert [one.uri_template for one in templates] == ["mesh://conversation/{peer}"]
    assert "alice.laptop: online" in peers.text  # type: ignore[union-attr]
    assert prompts == ["inbox", "peers", "send", "conversation"]
    assert '"hi"' in prompt.messages[0].content.text  # type: ignore[union-attr]


async def test_a_session_is_told_of_a_message_by_its_stream(pair: Pair, server: HttpServer) -> None:
    """2025: what it subscribed to, on the stream that the client holds open."""
    told: list[str] = []

    async def listen(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/resources/updated":
            told.append(str(message.params.uri))

    async with http_agent(server, on_message=listen) as bob:
        await bob.client.subscribe_resource("mesh://inbox")
        pair.send("ring")
        with anyio.fail_after(30):
            while "mesh://inbox" not in told:  # noqa: ASYNC110 - the client has no event for it
                await anyio.sleep(0.05)
        await bob.says("mesh_inbox")


async def test_a_subscription_tells_under_the_clients_own_id(pair: Pair, server: HttpServer) -> None:
    """2026: two clients listen on one session, and each hears of what it listens to."""
    async with http_agent(server, "label=ear", era=ERAS[1]) as one, http_agent(server, "label=ear", era=ERAS[1]) as two:
        async with (
            one.client.listen(resource_subscriptions=["mesh://inbox"]) as first,
            two.client.listen(resource_subscriptions=["mesh://inbox"]) as second,
        ):
            pair.send("ring twice")
            with anyio.fail_after(30):
                heard = [await anext(aiter(first)), await anext(aiter(second))]
        await one.says("mesh_inbox")

    assert [event.uri for event in heard] == ["mesh://inbox"] * 2


def test_an_answer_to_a_client_that_is_never_heard_of_again_is_not_read(pair: Pair, server: HttpServer) -> None:
    """It has left, and that is all that is known: the sender is told as much, and the next session is shown it."""
    message = pair.send("never confirmed")
    session = opened_session(server, query="label=unheard")
    (answer,) = exchange(server.port, tool_call(1, "mesh_inbox"), session).messages
    wait_until(lambda: pair.stages(message) == ["offered"], "it has left")
    exchange(server.port, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}, session)
    exchange(server.port, b"", session, method="DELETE")
    wait_until(lambda: "unheard" not in _labels(pair), "the session is gone")
    other = opened_session(server)
    (shown,) = exchange(server.port, tool_call(1, "mesh_inbox"), other).messages
    exchange(server.port, b"", other, method="DELETE")

    assert message in answer["result"]["content"][0]["text"]
    assert message in shown["result"]["content"][0]["text"]
    wait_until(lambda: pair.stages(message)[-1] == "read", "the end of a session that wants it is a sign")


def test_what_comes_for_a_client_that_has_gone_is_offered_to_the_next(pair: Pair, server: HttpServer) -> None:
    """Its connection broke while the tool waited: nobody was shown anything, and nobody is told so."""
    session = opened_session(server)
    waiting = socket.create_connection(("127.0.0.1", server.port))
    waiting.sendall(raw_request(server.port, tool_call(1, "mesh_inbox", wait_s=60), session))
    assert b"200" in waiting.recv(1_000)
    waiting.close()
    message = pair.send("too late")
    other = opened_session(server)

    def is_shown() -> bool:
        (shown,) = exchange(server.port, tool_call(1, "mesh_inbox"), other).messages
        return message in shown["result"]["content"][0]["text"]

    wait_until(is_shown, "another session gets it")
    assert "read" not in pair.stages(message)
    for one in (session, other):
        exchange(server.port, b"", one, method="DELETE")
    wait_until(lambda: pair.stages(message) == ["offered", "read"], "one showing, one receipt")


@pytest.mark.parametrize("era", ERAS)
async def test_a_daemon_killed_in_mid_call_is_an_error_and_the_next_call_works(
    pair: Pair, server: HttpServer, era: str
) -> None:
    """The HTTP server and its sessions outlive the daemon; the client notices one failed call."""
    async with http_agent(server, f"label=survivor-{era[:4]}", era=era) as bob:
        before = await bob.says("mesh_self")
        replies: list[Any] = []

        async def wait_for_a_message() -> None:
            replies.append(await bob.call("mesh_inbox", wait_s=60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_a_message)
            await anyio.sleep(1)  # it waits in the daemon by now; were it not there yet, the call would fail the same
            pair.bob.kill_daemon()
        after = await bob.until("mesh_self", "connected")

    assert replies[0].is_error
    assert "whether it took effect is not known" in replies[0].text
    assert after.splitlines()[0] == before.splitlines()[0]


async def test_an_idle_session_finds_the_daemon_that_somebody_else_starts(pair: Pair, server: HttpServer) -> None:
    """It starts none itself, and is in presence again without a request."""
    async with http_agent(server, "label=patient") as bob:
        await bob.says("mesh_self")
        pair.bob.ok("daemon", "stop")
        await anyio.sleep(2.5)
        stopped = pair.bob.run("daemon", "status", "--json").json
        pair.bob.ok("daemon", "start")
        wait_until(lambda: "patient" in _labels(pair), "the session is back")

    assert stopped == {"running": False}


async def test_what_a_url_says_holds_for_its_session(pair: Pair, server: HttpServer) -> None:
    """What another client has on its command line; a client that says nothing goes by its own name."""
    pair.bob.ok("grant", "alice", "ask")
    async with http_agent(server, "label=api&mesh=team&tag=repo%3Dbilling&peers-as-tools", client="other") as one:
        tools = [tool.name for tool in (await one.client.list_tools()).tools]
        said = await one.says("mesh_self")
    async with http_agent(server, client="other", era=ERAS[1]) as two:
        plain = await two.says("mesh_self")
    wrong = exchange(server.port, INITIALIZE, server.bearer(), query="lable=api").messages

    assert "ask_alice_laptop" in tools
    assert said.startswith("bob.desktop/api in mesh team")
    assert "repo=billing" in said
    assert plain.startswith("bob.desktop/other in mesh team")
    assert "label, mesh, tag and peers-as-tools" in wrong[0]["error"]["message"]


def test_a_session_leaves_when_its_client_ends_it_or_is_silent_for_long(pair: Pair) -> None:
    """In the 2025 era a client says so; in either, one that is not heard of any more is gone."""
    with _impatient_server(pair) as server:
        opened_session(server, query="label=silent-2025")
        message, headers = modern(1, "tools/list")
        exchange(server.port, message, {**headers, **server.bearer()}, query="label=silent-2026")
        assert {"silent-2025", "silent-2026"} <= _labels(pair)
        wait_until(lambda: not {"silent-2025", "silent-2026"} & _labels(pair), "both are gone")


def test_a_stopped_server_ends_open_streams_and_takes_its_sessions_along(pair: Pair) -> None:
    """SIGTERM is an orderly end: exit code 0, and nothing stays in presence."""
    with http_server(pair.bob) as server:
        session = opened_session(server, query="label=streaming")
        stream = socket.create_connection(("127.0.0.1", server.port))
        stream.sendall(raw_request(server.port, b"", session, method="GET"))
        assert b"200" in stream.recv(1_000)
        assert "streaming" in _labels(pair)
    stream.close()

    assert server.process.returncode == 0
    wait_until(lambda: "streaming" not in _labels(pair), "the session is gone")


def test_a_token_is_made_once_and_is_in_its_file_alone(pair: Pair) -> None:
    """Neither an argument, nor the environment, nor an output, nor a log shows it; the next start knows it, too."""
    with http_server(pair.bob, "--client", "secretive") as server:
        token, path = server.token("secretive"), server.token_files["secretive"]
        opened_session(server, "secretive")
        exchange(server.port, {}, {"Authorization": f"Bearer {token}x"})
        around = Path(f"/proc/{server.process.pid}")
        shown = (around / "cmdline").read_bytes() + (around / "environ").read_bytes()
    with http_server(pair.bob, "--client", "secretive") as again:
        assert again.token("secretive") == token
        opened_session(again, "secretive")
    outputs = [stream for one in (server, again) for stream in (one.process.stdout, one.process.stderr)]
    output = "".join(stream.read() for stream in outputs if stream is not None)
    elsewhere = [file for file in pair.bob.config_dir.rglob("*") if file.is_file() and file != path]

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert token.encode() not in shown
    assert token not in output
    assert [file for file in elsewhere if token.encode() in file.read_bytes()] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "0.0.0.0:0"], "--allow-remote"),
        (["--listen", "0.0.0.0:0", "--allow-remote"], "--allow-host"),
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--client", "Not A Name"], "--client"),
        (["--allow-host", "http://x/"], "--allow-host"),
    ],
)
def test_what_is_not_safe_is_refused_before_anything_listens(pair: Pair, words: list[str], said: str) -> None:
    """Open to others only when that was said, twice over."""
    error = pair.bob.fails("mcp", "http", *words)

    assert error["code"] == "usage"
    assert said in error["message"]


def test_a_token_that_others_can_read_is_refused(pair: Pair) -> None:
    """They may have read it; the file with the remedy is named."""
    with http_server(pair.bob, "--client", "leaked") as server:
        path = server.token_files["leaked"]
    path.chmod(0o644)

    error = pair.bob.fails("mcp", "http", "--listen", "127.0.0.1:0", "--client", "leaked")

    assert error["code"] == "config_mode"
    assert f"chmod 600 {path}" in error["message"]


def test_a_port_that_is_taken_is_told(pair: Pair, server: HttpServer) -> None:
    """With the address, and nothing took effect."""
    error = pair.bob.fails("mcp", "http", "--listen", f"127.0.0.1:{server.port}")

    assert f"127.0.0.1:{server.port}" in error["message"]


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_has_its_share_is_told_so_and_served_again_later(pair: Pair, era: str) -> None:
    """By 429 and a time after which one of its sessions has ended, although its client never said so."""

    def opened(number: int) -> Answer:
        message, headers = (INITIALIZE, {}) if era == ERAS[0] else modern(1, "tools/list")
        return exchange(server.port, message, {**headers, **server.bearer()}, query=f"label=n{number}")

    others = [f"other{number}" for number in range(MAX_CLIENTS - 1)]  # so that its share is small
    with _impatient_server(pair, 5, *others) as server:
        refused = next(answer for number in itertools.count() if (answer := opened(number)).status != 200)
        wait_until(lambda: opened(0).status == 200, "an idle session has ended")

    assert refused.status == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert "end one, or wait" in refused.messages[0]["error"]["message"]


async def test_with_no_mesh_every_tool_says_how_to_join(tmp_path: Path) -> None:
    """The server runs before there is anything to say."""
    with machine(tmp_path, "carol") as carol, http_server(carol) as server:
        async with http_agent(server) as agent:
            reply = await agent.call("mesh_peers")

    assert reply.is_error
    assert "claudemesh join" in reply.text


async def test_a_call_that_waits_tells_that_it_is_alive(pair: Pair, server: HttpServer) -> None:
    """Under the client's own token of progress, on the request's own stream."""
    told: list[float] = []

    async def listen(progress: float, _: float | None, __: str | None) -> None:
        told.append(progress)

    async with http_agent(server, era=ERAS[1]) as bob:
        await bob.client.call_tool("mesh_inbox", {"wait_s": 6}, progress_callback=listen)

    assert told


def _labels(pair: Pair) -> set[str]:
    with Client(pair.bob.config_dir / "daemon.sock", 60) as client:
        return {one["label"] for one in client.call("agent.list", {})["agents"]}


@contextmanager
def _impatient_server(pair: Pair, idle_s: int = 1, *others: str) -> Iterator[HttpServer]:
    """One whose sessions end after a second of silence, or as many as are said; for others, too."""
    words = ["-P", "-c", IMPATIENT, str(idle_s), ",".join(["agent", *others])]
    process = subprocess.Popen([sys.executable, *words], env=pair.bob.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        yield HttpServer(process, url, {"agent": pair.bob.config_dir / "mcp" / "agent.token"})
    finally:
        process.terminate()
        process.communicate()
