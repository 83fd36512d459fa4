"""Attempts on `claudemesh mcp http`: by strangers, by web pages, by one client on another, and on receipts."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import Client
from claudemesh.listen import Listen
from claudemesh.mcp.http import app
from claudemesh.mcp.http.connections import BODY_WITHIN_S, HEAD_WITHIN_S
from claudemesh.mcp.http.link import MAX_SUBSCRIPTIONS
from claudemesh.mcp.http.settings import MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_EXCHANGES, MAX_SESSIONS, Settings
from claudemesh.mcp.http.tokens import load_tokens
from claudemesh.mcp.options import Options
from tests.mcp_clients import Pair
from tests.mcp_http import INITIALIZE, Answer, exchange, modern, raw_request, tool_call
from tests.processes import wait_until

VICTIM, OTHER = "victim", "other"
MARKER = "label=marker"
OK = 200


class Scene(NamedTuple):
    """Alice writes; at Bob's, the HTTP server runs in this process, for two clients, beside his real daemon."""

    pair: Pair
    port: int
    tokens: dict[str, str]

    def ask(self, message: Any, headers: dict[str, str] | None = None, **how: str) -> Answer:
        """One request, with no token unless the headers have one."""
        return exchange(self.port, message, headers or {}, **how)

    def bearer(self, client: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[client]}"}

    def session(self, client: str) -> dict[str, str]:
        """The headers of a session that a client has opened, which goes by its name."""
        answer = self.ask(INITIALIZE, self.bearer(client))
        assert answer.status == OK, answer
        return {**self.bearer(client), "Mcp-Session-Id": answer.headers["mcp-session-id"]}

    def send_to(self, label: str, text: str) -> str:
        """Alice writes to one of Bob's sessions; returns the id once it is at Bob's."""
        wait_until(lambda: label in self._labels_at_alices(), "the session is known")
        return self.pair.send(text, to=f"bob.desktop/{label}")

    def is_said_to_be(self, message_id: str, stage: str) -> bool:
        """Whether Alice was told of a stage, once everything that was stated before now has arrived."""
        self._as_marker("mesh_self")
        marker = self.send_to("marker", f"after {message_id}")
        self._as_marker("mesh_inbox")
        self._as_marker("mesh_self")
        wait_until(lambda: "read" in self.pair.stages(marker), "the marker was read")
        return stage in self.pair.stages(message_id)

    def _labels_at_alices(self) -> set[str]:
        peers = self.pair.alice.ok("peers")["peers"]
        return {session["label"] for peer in peers for session in peer["sessions"]}

    def _as_marker(self, tool: str) -> None:
        message, headers = modern(1, "tools/call", name=tool, arguments={})
        assert self.ask(message, {**headers, **self.bearer(OTHER)}, query=MARKER).status == OK


@contextmanager
def http_scene(pair: Pair) -> Iterator[Scene]:
    """Set the stage: in this process, so that a build of which a rule was taken can be attacked as well."""
    config = ConfigDir(pair.bob.config_dir)
    settings = Settings(Listen("127.0.0.1", 0), (VICTIM, OTHER), Options())
    tokens = load_tokens(config, settings.clients)
    with app.listen(settings) as listener:
        served = app.server(config, settings, tokens, listener)
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]})
        port = listener.getsockname()[1]
        thread.start()
        try:
            yield Scene(pair, port, tokens)
        finally:
            served.should_exit = True
            thread.join()
    wait_until(lambda: not _labels(pair), "the sessions of the scene are gone")


def ask_without_a_token(scene: Scene) -> bool:
    """Any program of this machine, or a web page, finds the port."""
    return scene.ask(INITIALIZE).status == OK


def guess_a_token(scene: Scene) -> bool:
    """Nothing, something, and what is nearly right."""
    true = scene.tokens[VICTIM]
    guesses = ["", "x", true[:-1], true + "x", true.swapcase(), "\xff" * 43]
    return any(scene.ask(INITIALIZE, {"Authorization": f"Bearer {one}"}).status == OK for one in guesses)


def ask_from_a_web_page(scene: Scene) -> bool:
    """A page that has got hold of a token; its browser says where the page is from."""
    return scene.ask(INITIALIZE, {**scene.bearer(VICTIM), "Origin": "https://evil.example"}).status == OK


def rebind_a_name(scene: Scene) -> bool:
    """A page whose name was made to point to 127.0.0.1, so that its browser takes us for the page's own server."""
    return scene.ask(INITIALIZE, {**scene.bearer(VICTIM), "Host": f"evil.example:{scene.port}"}).status == OK


def speak_in_anothers_session(scene: Scene) -> bool:
    """A client with a token of its own has learnt the id of another one's session."""
    session = scene.session(VICTIM)
    scene.send_to(VICTIM, "for the victim alone")
    answer = scene.ask(tool_call(7, "mesh_inbox"), {**session, **scene.bearer(OTHER)})

    return "for the victim alone" in answer.body


def speak_as_another_by_its_url(scene: Scene) -> bool:
    """In the 2026 protocol there is no session to name: the attacker dials the URL that its victim dials."""
    session = scene.session(VICTIM)
    opening, headers = modern(6, "tools/call", name="mesh_self", arguments={})
    assert scene.ask(opening, {**headers, **scene.bearer(VICTIM)}, query="label=elsewhere").status == OK
    scene.send_to("elsewhere", "for the victim alone, too")
    call, headers = modern(7, "tools/call", name="mesh_inbox", arguments={})
    answer = scene.ask(call, {**session, **scene.bearer(OTHER), **headers}, query="label=elsewhere")

    return "for the victim alone, too" in answer.body


def end_anothers_session(scene: Scene) -> bool:
    """Which would cut it off, and state that it read what it was given last."""
    session = scene.session(VICTIM)
    return scene.ask(b"", {**session, **scene.bearer(OTHER)}, method="DELETE").status == OK


def pass_for_the_hook_of_a_host(scene: Scene) -> bool:
    """What hosts of this user call by a tool that nobody is told of: it takes over the session that it names."""
    with Client(scene.pair.bob.config_dir / "daemon.sock", 60) as client:
        client.call("agent.open", {"host": "claude-code", "key": "its-own-id", "label": "coder"})
        scene.send_to("coder", "for the coder alone")
        session = scene.session(OTHER)
        hook = {"host": "claude-code", "event": "UserPromptSubmit", "session_id": "its-own-id"}
        answers = [scene.ask(tool_call(number, "mesh_hook", **hook), session) for number in (1, 2)]
        answers.append(scene.ask(tool_call(3, "mesh_inbox"), session))
        client.call("agent.close", {"host": "claude-code", "key": "its-own-id"})

    return any("for the coder alone" in answer.body for answer in answers)


def connect_without_end(scene: Scene) -> bool:
    """A program without a token opens connections, and asks for nothing: each one is kept."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", scene.port)))
            for _ in range(MAX_CONNECTIONS + 100)
        ]
        return any(not is_ended_within(one, HEAD_WITHIN_S / 2) for one in opened[-100:])


def begin_to_ask_and_stop(scene: Scene) -> bool:
    """It says a little, now and then, and never all of it."""
    with socket.create_connection(("127.0.0.1", scene.port)) as one:
        one.sendall(b"POST /mcp HTTP/1.1\r\nHost:")
        return not is_ended_within(one, 3 * HEAD_WITHIN_S)


def begin_to_tell_and_stop(scene: Scene) -> bool:
    """Its token is good and its request is complete, but for the last byte."""
    request = raw_request(scene.port, INITIALIZE, scene.bearer(OTHER))
    with socket.create_connection(("127.0.0.1", scene.port)) as one:
        one.sendall(request[:-1])
        return not is_ended_within(one, 1.5 * BODY_WITHIN_S)


def is_ended_within(connection: socket.socket, within_s: float) -> bool:
    """Whether the other end ends a connection; it has nothing else to say on it."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def send_a_huge_body(scene: Scene) -> bool:
    """To fill the memory of the server and of the daemon behind it."""
    call = tool_call(7, "mesh_self", about="x" * (MAX_BODY_BYTES + 1))
    return scene.ask(call, scene.session(OTHER)).status == OK


def open_sessions_without_end(scene: Scene) -> bool:
    """Each one is kept, here and in the daemon."""
    opened = sum(scene.ask(INITIALIZE, scene.bearer(OTHER)).status == OK for _ in range(MAX_SESSIONS + 1))
    return opened > MAX_SESSIONS


def fail_to_open_sessions_without_end(scene: Scene) -> bool:
    """The SDK keeps one for each request to initialize that it has passed on, whatever came of it."""
    answers = (scene.ask(INITIALIZE, scene.bearer(OTHER), query="no=such") for _ in range(MAX_SESSIONS + 1))
    return all("mcp-session-id" in answer.headers for answer in answers)


def take_the_sessions_of_another(scene: Scene) -> bool:
    """One that never ends what it opens: the other client finds none left."""
    for _ in range(MAX_SESSIONS):
        scene.ask(INITIALIZE, scene.bearer(OTHER))
    return scene.ask(INITIALIZE, scene.bearer(VICTIM)).status != OK


def take_the_urls_of_another(scene: Scene) -> bool:
    """The same in the 2026 protocol, with an URL for each."""
    message, headers = modern(1, "tools/list")
    for number in range(MAX_SESSIONS):
        scene.ask(message, {**headers, **scene.bearer(OTHER)}, query=f"label=n{number}")
    return "result" not in scene.ask(message, {**headers, **scene.bearer(VICTIM)}).messages[0]


def take_the_sessions_of_another_by_half_requests(scene: Scene) -> bool:
    """A session has its place before the request to open it is complete."""
    return _is_locked_out_by_half_requests(scene, scene.bearer(OTHER), MAX_SESSIONS)


def take_the_answers_of_another(scene: Scene) -> bool:
    """One session will do, with as many requests at a time as there can be."""
    return _is_locked_out_by_half_requests(scene, scene.session(OTHER), MAX_EXCHANGES)


def _is_locked_out_by_half_requests(scene: Scene, headers: dict[str, str], count: int) -> bool:
    session = scene.session(VICTIM)
    request = raw_request(scene.port, INITIALIZE, headers)
    with ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", scene.port)))
            one.sendall(request[:-1])
        answers = [scene.ask(INITIALIZE, scene.bearer(VICTIM)), scene.ask(tool_call(7, "mesh_self"), session)]
    return any(answer.status != OK for answer in answers)


def subscribe_without_end(scene: Scene) -> bool:
    """Each resource is remembered for the next daemon, there or not."""
    session = scene.session(OTHER)
    uris = [f"mesh://conversation/n{number}" for number in range(MAX_SUBSCRIPTIONS + 1)]
    answers = [scene.ask(_subscription(number, uri), session) for number, uri in enumerate(uris)]
    return all("result" in answer.messages[0] for answer in answers)


def subscribe_to_a_huge_name(scene: Scene) -> bool:
    """One will do, if it may be as large as a body."""
    answer = scene.ask(_subscription(1, f"mesh://{'x' * 1_000_000}"), scene.session(OTHER))
    return "result" in answer.messages[0]


def invent_urls_without_end(scene: Scene) -> bool:
    """In the 2026 protocol each URL is an agent of its own."""
    message, headers = modern(1, "tools/list")
    answers = [
        scene.ask(message, {**headers, **scene.bearer(OTHER)}, query=f"label=n{number}")
        for number in range(MAX_SESSIONS + 1)
    ]
    return all("result" in answer.messages[0] for answer in answers)


def be_called_read_by_a_client_that_vanished(scene: Scene) -> bool:
    """It took the answer from the network, and was never heard of again."""
    session = scene.session(VICTIM)
    message = scene.send_to(VICTIM, "perhaps never seen")
    scene.ask(tool_call(7, "mesh_inbox"), session)

    return scene.is_said_to_be(message, "read")


def be_called_read_by_a_client_that_gave_up(scene: Scene) -> bool:
    """It cancelled when the answer was on its way, and went on with something else."""
    session = scene.session(VICTIM)
    message = scene.send_to(VICTIM, "not wanted any more")
    scene.ask(tool_call(7, "mesh_inbox"), session)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    scene.ask(cancelled, session)
    scene.ask(tool_call(8, "mesh_self"), session)
    scene.ask(tool_call(9, "mesh_self"), session)

    return scene.is_said_to_be(message, "read")


def be_called_offered_by_a_client_that_hung_up(scene: Scene) -> bool:
    """Its connection was closed long before there was anything to say."""
    session = scene.session(VICTIM)
    with socket.create_connection(("127.0.0.1", scene.port)) as waiting:
        waiting.sendall(raw_request(scene.port, tool_call(7, "mesh_inbox", wait_s=60), session))
        assert b"200" in waiting.recv(1_000)
    message = scene.send_to(VICTIM, "too late")

    return scene.is_said_to_be(message, "offered")


def _subscription(number: int, uri: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "resources/subscribe", "params": {"uri": uri}}


def _labels(pair: Pair) -> list[str]:
    with Client(pair.bob.config_dir / "daemon.sock", 60) as client:
        return [one["label"] for one in client.call("agent.list", {})["agents"]]
