"""The last hop with real daemons: what a session of an agent is shown, when, once, and what its sender learns of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from claudemesh.daemon.ipc import AnsweredError, Client
from tests.agents import Host, ids, numbers
from tests.processes import Machine, introduce, machine, start_broker, wait_until


class Pair(NamedTuple):
    """Alice writes; at Bob's, an agent runs."""

    alice: Machine
    bob: Machine

    def send(self, text: str, *options: str, to: str = "bob.desktop") -> str:
        """Send, and wait until it is at the other machine; returns the id."""
        answer = self.alice.ok("send", to, text, "--wait", "delivered", *options)
        assert answer["stage"] == "delivered"
        return str(answer["id"])

    def steps(self, message_id: str) -> list[Any]:
        """What Alice knows of a message beyond its delivery."""
        steps = self.alice.ok("message", message_id)["steps"]
        return [step for step in steps if step["stage"] not in ("queued", "accepted", "delivered")]

    def session_key(self, label: str) -> str:
        """The key of a session of Bob's that is connected, as Alice sees it."""
        (bob,) = [one for one in self.alice.ok("peers")["peers"] if one["address"] == "bob.desktop"]
        return next((str(one["key"]) for one in bob["sessions"] if one["label"] == label), "")

    def stages(self, message_id: str) -> list[str]:
        return [step["stage"] for step in self.steps(message_id)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two machines in one mesh."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        introduce(broker, alice, bob)
        yield Pair(alice, bob)


@pytest.fixture
def agent(pair: Pair) -> Host:
    """A session of an agent at Bob's."""
    host = Host(pair.bob, "5e55-10n")
    host.open()
    return host


def test_each_stage_is_stated_when_there_is_evidence_of_it(pair: Pair, agent: Host) -> None:
    """`offered` names the adapter; `read` comes with the next event, signed by the session's own key."""
    message_id = pair.send("the build is green")
    taken = agent.take("turn_end", adapter="claude-code.stop")
    agent.hand(taken)
    wait_until(lambda: pair.stages(message_id) == ["offered"], "offered")
    agent.take("prompt", confirm="next_event")
    wait_until(lambda: pair.stages(message_id) == ["offered", "read"], "read")

    assert "| the build is green" in taken["text"]
    assert ids(taken) == [message_id]
    offered, read = pair.steps(message_id)
    assert (offered["code"], read["code"]) == ("claude-code.stop", "claude-code.stop")
    assert read["signer"] != offered["signer"]
    assert (offered["signer_address"], read["signer_address"]) == ("bob.desktop", "bob.desktop/payments-api")
    wait_until(lambda: pair.session_key("payments-api") == read["signer"], "the session is in presence")


def test_the_recipient_sees_the_same_timeline(pair: Pair, agent: Host) -> None:
    """`message ID` on the other side: which adapter, which session, what showed that it was read."""
    message_id = pair.send("hello")
    taken = agent.take("prompt", adapter="claude-code.prompt")
    agent.confirm(taken, "transcript")

    steps = pair.bob.ok("message", message_id)["steps"]
    assert [step["stage"] for step in steps] == ["queued", "accepted", "delivered", "offered", "read"]
    assert [step["code"] for step in steps[3:]] == ["claude-code.prompt", "transcript"]
    assert [step["to"] for step in steps[3:]] == ["bob.desktop/payments-api"] * 2


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("session_start", ["now", "next"]),
        ("prompt", ["now", "next"]),
        ("tool", ["now"]),
        ("turn_end", ["now", "next"]),
        ("idle_wake", ["now", "next"]),
        ("inbox", ["now", "next", "low"]),
    ],
)
def test_each_moment_shows_what_it_may(pair: Pair, agent: Host, moment: str, shown: list[str]) -> None:
    """The most urgent first; `low` only when the agent asks."""
    pair.bob.ok("grant", "alice", "now")
    for priority in ("low", "next", "now"):
        pair.send(priority, "--priority", priority)

    taken = agent.take(moment)

    assert [one["priority"] for one in taken["offers"]] == shown
    assert taken["waiting"] == 3 - len(shown)


def test_a_message_is_shown_once_across_ways_of_showing_it(pair: Pair, agent: Host) -> None:
    """Whatever rung comes next, and whether or not the first one was confirmed."""
    pair.send("one")
    first = agent.take("turn_end", adapter="a")
    agent.hand(first)

    assert [agent.take(moment, adapter="b")["offers"] for moment in ("tool", "prompt", "idle_wake", "inbox")] == [
        []
    ] * 4
    agent.confirm(first)
    assert agent.take("inbox")["offers"] == []
    assert pair.bob.inbox() == []


def test_what_was_withdrawn_is_offered_by_the_next_way(pair: Pair, agent: Host) -> None:
    """An adapter that knows that it showed nothing says so."""
    message_id = pair.send("one")
    first = agent.take("idle_wake", adapter="a")
    agent.ask("withdraw", offers=numbers(first))

    assert ids(agent.take("prompt", adapter="b")) == [message_id]


def test_nobody_takes_back_what_another_session_was_shown(pair: Pair, agent: Host) -> None:
    """Offers belong to the session that they were made to."""
    other = Host(pair.bob, "other", cwd="/srv/web")
    other.open()
    pair.send("one")
    taken = agent.take("prompt")
    other.ask("withdraw", offers=numbers(taken))
    other.ask("confirm", offers=numbers(taken), evidence="next_event")

    assert other.take("prompt")["offers"] == []
    assert agent.take("prompt")["offers"] == []
    assert [row["unread"] for row in pair.bob.inbox("--all")] == [True]


def test_a_message_to_a_session_is_for_that_session(pair: Pair, agent: Host) -> None:
    """Another one of the same peer is not shown it, whatever it asks for."""
    other = Host(pair.bob, "other", cwd="/srv/web")
    other.open()
    wait_until(lambda: "payments-api" in pair.alice.run("peers").stdout, "the session is known")
    message_id = pair.send("for you", to="bob.desktop/payments-api")

    assert other.take("inbox")["offers"] == []
    with pytest.raises(AnsweredError) as error:
        other.take("inbox", message=message_id)
    assert error.value.error["code"] == "unknown_message"
    assert ids(agent.take("prompt")) == [message_id]


def test_a_message_to_the_peer_goes_to_one_session(pair: Pair, agent: Host) -> None:
    """Two agents do not both act on it; a session that ends without having read it leaves it to the other."""
    other = Host(pair.bob, "other", cwd="/srv/web")
    other.open()
    message_id = pair.send("somebody")

    assert ids(agent.take("prompt")) == [message_id]
    assert other.take("prompt")["offers"] == []
    agent.ask("close")
    assert ids(other.take("prompt")) == [message_id]


def test_a_long_message_is_read_when_all_of_it_was_shown(pair: Pair, agent: Host) -> None:
    """Head, then the rest on request: `read` is stated after the last part, and no part exceeds the limit."""
    text = "".join(f"line {number}\n" for number in range(4_000))
    message_id = str(pair.alice.ok("send", "bob.desktop", "-", stdin=text)["id"])
    agent.wait_for(1)
    parts = [agent.take("prompt", limit_characters=9_500)]
    while not parts[-1]["offers"][0]["whole"]:
        agent.confirm(parts[-1])
        assert "read" not in pair.stages(message_id)
        parts.append(agent.take("inbox", message=message_id[:8], limit_characters=9_500))
    agent.confirm(parts[-1], "tool_result")
    wait_until(lambda: "read" in pair.stages(message_id), "read")

    assert len(parts) > 4
    assert max(len(one["text"]) for one in parts) < 9_500
    body = [line[2:] for one in parts for line in one["text"].split("\n") if line.startswith("| ")]
    assert "".join(body).replace("line", "\nline").strip() == text.strip()
    assert "mesh_inbox" in parts[0]["text"]


def test_the_same_session_after_a_restart_is_not_shown_it_again(pair: Pair, agent: Host) -> None:
    """A daemon that is killed between offer and reading: no false `read`, no second showing, nothing lost."""
    message_id = pair.send("once")
    agent.take("turn_end")
    pair.bob.kill_daemon()
    pair.bob.ok("daemon", "start")
    again = Host(pair.bob, agent.key)

    assert pair.stages(message_id) == []
    assert again.take("session_start", confirm="next_event")["offers"] == []
    assert again.take("prompt", confirm="next_event")["offers"] == []
    assert again.status()["waiting"]["doubtful"] == 1
    assert "read" not in pair.stages(message_id)
    asked = again.take("inbox")
    assert ids(asked) == [message_id]
    assert "may have been shown to you before" in asked["text"]
    again.confirm(asked, "tool_result")
    wait_until(lambda: "read" in pair.stages(message_id), "read")


def test_a_session_goes_by_its_name_after_a_restart(pair: Pair, agent: Host) -> None:
    """Whoever opens first: the same label, the same reach and words, and messages to its former key reach it."""
    second = Host(pair.bob, "second")
    second.open(reach="wakeable", tags=["repo=billing"])
    second.status(about="the second one")
    wait_until(lambda: "payments-api-2" in pair.alice.run("peers").stdout, "the session is known")
    message_id = pair.send("for the second", to="bob.desktop/payments-api-2")
    pair.bob.kill_daemon()
    pair.bob.ok("daemon", "start")
    opened = second.open()
    agent.open()

    told = {name: opened[name] for name in ("label", "reach", "about", "tags")}
    assert told == {"label": "payments-api-2", "reach": "wakeable", "about": "the second one", "tags": ["repo=billing"]}
    assert agent.take("prompt")["offers"] == []
    assert ids(second.take("prompt")) == [message_id]


def test_what_the_host_was_given_before_a_kill_is_confirmed_by_its_next_event(pair: Pair, agent: Host) -> None:
    """That the hook had written it is durable, too."""
    message_id = pair.send("once")
    agent.hand(agent.take("turn_end"))
    pair.bob.kill_daemon()
    pair.bob.ok("daemon", "start")
    again = Host(pair.bob, agent.key)
    again.take("prompt", confirm="next_event")

    wait_until(lambda: "read" in pair.stages(message_id), "read")


def test_a_host_that_began_anew_does_not_confirm_what_its_former_process_was_given(pair: Pair, agent: Host) -> None:
    """The session was killed before its model got the text; it is resumed, and goes on without it."""
    message_id = pair.send("once")
    agent.hand(agent.take("turn_end"))
    taken = [agent.take(moment, confirm="next_event") for moment in ("session_start", "prompt", "turn_end")]
    asked = agent.take("inbox")

    assert [one["offers"] for one in taken] == [[], [], []]
    assert "read" not in pair.stages(message_id)
    assert ids(asked) == [message_id]
    agent.confirm(asked, "tool_result")
    wait_until(lambda: "read" in pair.stages(message_id), "read")


def test_a_caller_that_hangs_up_was_shown_nothing(pair: Pair, agent: Host) -> None:
    """A hook that is killed while it waits for its answer: the next rung offers the message."""
    message_id = pair.send("once")
    client = Client(pair.bob.config_dir / "daemon.sock", 60)
    args = {"host": agent.host, "key": agent.key, "moment": "prompt", "adapter": "a"}
    stream = client.stream("agent.take", args)
    hang_up_after_asking(client, stream)

    wait_until(lambda: withdrawn(pair.bob) == 1, "it is taken back")

    assert agent.status()["waiting"]["next"] == 1
    assert ids(agent.take("prompt")) == [message_id]
    assert pair.stages(message_id) == []


def withdrawn(one: Machine) -> int:
    """How many offers were taken back, by the journal."""
    with closing(sqlite3.connect(one.config_dir / "state.db")) as journal:
        return int(journal.execute("SELECT count(*) FROM offers WHERE withdrawn_at IS NOT NULL").fetchone()[0])


def hang_up_after_asking(client: Client, stream: Any) -> None:
    """Write the request and close, without reading."""
    original = client._read
    client._read = lambda: (_ for _ in ()).throw(EOFError)  # type: ignore[method-assign]
    with pytest.raises(EOFError):
        next(stream)
    client._read = original  # type: ignore[method-assign]
    client.close()


def test_news_says_what_interrupts_and_what_wakes(pair: Pair, agent: Host) -> None:
    """One session is woken for a message to the peer, the idle one; `low` wakes nobody."""
    busy = Host(pair.bob, "busy", cwd="/srv/web")
    busy.open(reach="tool")
    busy.take("prompt")
    agent.status(reach="wakeable")
    pair.bob.ok("grant", "alice", "now")
    with (
        Client(pair.bob.config_dir / "daemon.sock", 60) as idle_end,
        Client(pair.bob.config_dir / "daemon.sock", 60) as busy_end,
    ):
        idle_news = idle_end.stream("agent.news", {"host": agent.host, "key": agent.key})
        busy_news = busy_end.stream("agent.news", {"host": busy.host, "key": busy.key})
        assert next(idle_news) == news(0, 0, 0)
        assert next(busy_news) == news(0, 0, 0)
        pair.send("fyi", "--priority", "low")
        assert next(idle_news) == news(0, 0, 1)
        assert next(busy_news) == news(0, 0, 1)
        pair.send("look")
        assert next(idle_news) == news(0, 1, 1, wakes=True)
        assert next(busy_news) == news(0, 1, 1)
        pair.send("stop!", "--priority", "now")
        assert next(busy_news) == news(1, 1, 1, interrupts=True)


def test_what_came_while_a_session_was_busy_wakes_it_once_it_is_idle(pair: Pair, agent: Host) -> None:
    """However its turn ended: nothing new has to come for that."""
    agent.take("prompt")
    with Client(pair.bob.config_dir / "daemon.sock", 60) as client:
        told = client.stream("agent.news", {"host": agent.host, "key": agent.key})
        assert next(told) == news(0, 0, 0)
        pair.send("look")
        assert next(told) == news(0, 1, 0)

        agent.status(status="idle")

        assert next(told) == news(0, 1, 0, wakes=True)


def news(now: int, next_: int, low: int, *, interrupts: bool = False, wakes: bool = False) -> Any:
    waiting = {"now": now, "next": next_, "low": low, "doubtful": 0}
    return {"waiting": waiting, "interrupts": interrupts, "wakes": wakes}


def test_who_is_not_to_be_disturbed_is_shown_only_now(pair: Pair, agent: Host) -> None:
    """`now` of a peer that was granted it comes through; everything else waits until it is asked for."""
    pair.bob.ok("grant", "alice", "now")
    pair.send("later")
    urgent = pair.send("stop!", "--priority", "now")
    agent.status(dnd=True)

    assert ids(agent.take("turn_end")) == [urgent]
    assert agent.take("prompt")["offers"] == []
    assert len(agent.take("inbox")["offers"]) == 1


def test_bad_requests_are_refused_and_show_nothing(pair: Pair, agent: Host) -> None:
    """Missing and wrong arguments, a session that is not open, words that are none."""
    pair.send("one")
    for op, args in [
        ("take", {"moment": "sometime", "adapter": "a"}),
        ("take", {"moment": "prompt"}),
        ("take", {"moment": "prompt", "adapter": "Not A Word"}),
        ("take", {"moment": "prompt", "adapter": "a", "limit_characters": 10}),
        ("take", {"moment": "inbox", "adapter": "a", "message": "ffffffff"}),
        ("confirm", {"offers": [1], "evidence": "it's so"}),
        ("status", {"about": "x" * 121}),
        ("status", {"tags": ["no value"]}),
        ("open", {"extra": 1}),
        ("open", {"mesh": "nowhere"}),
    ]:
        host = Host(pair.bob, "another") if op == "open" else agent
        with pytest.raises(AnsweredError):
            host.ask(op, **args)
    with pytest.raises(AnsweredError):
        Host(pair.bob, "not open").status()

    assert len(agent.take("prompt")["offers"]) == 1


def test_a_session_is_open_before_there_is_a_mesh(tmp_path: Path) -> None:
    """It gets an address as soon as there is one to get."""
    with machine(tmp_path, "carol") as carol:
        carol.ok("daemon", "start")
        agent = Host(carol, "early")

        assert agent.open()["addresses"] == []
        assert agent.take("prompt") == {"text": "", "offers": [], "waiting": 0}
        carol.ok("up", "--name", "carol", "--device", "box")
        wait_until(lambda: agent.status()["addresses"] == ["carol.box/payments-api"], "it has an address")


def test_two_sessions_in_one_directory_have_two_names(pair: Pair, agent: Host) -> None:
    """The second one gets a number, and each its own messages."""
    second = Host(pair.bob, "second")

    assert second.open()["addresses"] == ["bob.desktop/payments-api-2"]
    assert [one["label"] for one in second.ask_list()] == ["payments-api", "payments-api-2"]


def test_an_answer_shows_that_the_message_was_read(pair: Pair, agent: Host) -> None:
    """A model that names the message which it answers has it in its context."""
    message_id = pair.send("ready?")
    agent.hand(agent.take("prompt"))
    pair.bob.ok("send", "alice.laptop", "yes", "--reply-to", message_id, "--as", "payments-api")

    wait_until(lambda: set(pair.stages(message_id)) == {"offered", "read", "replied"}, "replied")
    assert [step["code"] for step in pair.bob.ok("message", message_id)["steps"]][-1] == "replied"


def test_everybody_sees_how_a_session_is_reached(pair: Pair, agent: Host) -> None:
    """`peers` and the answer to `send` say what will happen to a message, and why."""
    agent.status(reach="wakeable", about="moving payments to v2")
    agent.take("prompt")
    wait_until(lambda: "busy, wakeable, moving payments to v2" in pair.alice.run("peers").stdout, "presence")
    to_busy = pair.alice.run("send", "bob.desktop/payments-api", "look").stdout
    agent.take("turn_end")
    agent.take("turn_end")
    wait_until(lambda: "(idle, wakeable" in pair.alice.run("peers").stdout, "idle again")
    to_idle = pair.alice.run("send", "bob.desktop", "look").stdout
    agent.ask("close")
    wait_until(lambda: "payments-api" not in pair.alice.run("peers").stdout, "the session is gone")
    to_nobody = pair.alice.ok("send", "bob.desktop", "look")

    assert "bob.desktop/payments-api is busy and is shown it at the end of its turn" in to_busy
    assert "bob.desktop is idle and will be woken" in to_idle
    (recipient,) = to_nobody["to"]
    assert (recipient["online"], recipient["agents"], recipient["reach"]) == (True, 0, "")
