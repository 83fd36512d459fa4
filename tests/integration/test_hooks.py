"""The hook command as a host runs it: what it writes, and what the sender may believe. Real processes and daemons."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from claudemesh.hosts.codex import NOTICE
from tests.processes import Machine, Result, introduce, machine, start_broker, wait_until


@dataclass
class Session:
    """Alice writes; at Bob's, a session of Claude Code calls its hooks."""

    alice: Machine
    bob: Machine
    transcript: Path
    key: str = "5e55-10n"
    noted: int = 0
    """Lines of its record."""

    def hook(self, event: str, *, entrypoint: str = "cli", **fields: Any) -> Result:
        """One event, as the host reports it."""
        given = {"hook_event_name": event, "session_id": self.key, "cwd": "/src/payments-api"}
        given |= {"transcript_path": str(self.transcript), **fields}
        return self.bob.run("hook", "claude-code", stdin=json.dumps(given), CLAUDE_CODE_ENTRYPOINT=entrypoint)

    def send(self, text: str, *options: str) -> str:
        answer = self.alice.ok("send", "bob.desktop", text, "--wait", "delivered", *options)
        return str(answer["id"])

    def stages(self, message_id: str) -> list[str]:
        steps = self.alice.ok("message", message_id)["steps"]
        return [step["stage"] for step in steps if step["stage"] not in ("queued", "accepted", "delivered")]

    def wait_for_stages(self, message_id: str, stages: list[str]) -> None:
        wait_until(lambda: self.stages(message_id) == stages, f"{stages}")

    def status(self) -> str:
        """Whether it is idle, as Alice is told."""
        (bob,) = [one for one in self.alice.ok("peers")["peers"] if one["address"] == "bob.desktop"]
        return next((str(one["status"]) for one in bob["sessions"] if one["label"] == "payments-api"), "")

    def note(self, *lines: Any) -> None:
        """What the host writes into its record of the conversation: each line follows the one before."""
        with self.transcript.open("a") as file:
            for line in lines:
                self.noted += 1
                place = {"uuid": str(self.noted), "parentUuid": str(self.noted - 1)}
                file.write(json.dumps(line | place, separators=(",", ":")) + "\n")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Two machines in one mesh."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        introduce(broker, alice, bob)
        yield Session(alice, bob, tmp_path / "transcript.jsonl")


def context(result: Result) -> str:
    """What a hook adds to the model's context."""
    assert result.exit_code == 0
    output = json.loads(result.stdout or "{}").get("hookSpecificOutput", {})
    return str(output.get("additionalContext", ""))


def said(text: str) -> Any:
    """How the record has what a hook added to the conversation."""
    return {"type": "attachment", "attachment": {"type": "hook_additional_context", "content": [text]}}


ANSWER = {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": "I see"}]}}


def test_the_beginning_of_a_session_shows_what_is_unread_once(session: Session) -> None:
    """And arms the watcher of the bell; the same session is not shown it again, whatever happens next."""
    session.send("the build is green")

    first = session.hook("SessionStart", source="startup")
    session.note(said(context(first)), ANSWER)
    again = [session.hook("SessionStart", source=source) for source in ("resume", "compact")]
    prompt = session.hook("UserPromptSubmit")

    assert "| the build is green" in context(first)
    (bell,) = json.loads(first.stdout)["hookSpecificOutput"]["watchPaths"]
    assert Path(bell).exists()
    assert [context(one) for one in [*again, prompt]] == ["", "", ""]


def test_the_bell_rings_for_an_idle_session_and_its_hook_wakes_it(session: Session) -> None:
    """The daemon changes the file that the session watches; the text goes to standard error with exit code 2."""
    started = json.loads(session.hook("SessionStart").stdout)
    bell = Path(started["hookSpecificOutput"]["watchPaths"][0])

    message_id = session.send("are you there?")
    wait_until(lambda: bell.read_text() != "", "the bell rings")
    woken = session.hook("FileChanged", file_path=str(bell))
    again = session.hook("FileChanged", file_path=str(bell))

    assert woken.exit_code == 2
    assert "| are you there?" in woken.stderr
    assert (again.exit_code, again.stderr) == (0, "")
    session.wait_for_stages(message_id, ["offered"])
    session.hook("Stop")
    session.wait_for_stages(message_id, ["offered", "read"])


def test_the_prompt_that_a_wake_makes_is_no_evidence(session: Session) -> None:
    """It precedes the request, and in a session's first turn there is no record yet that could say more."""
    bell = Path(json.loads(session.hook("SessionStart").stdout)["hookSpecificOutput"]["watchPaths"][0])
    message_id = session.send("are you there?")
    wait_until(lambda: bell.read_text() != "", "the bell rings")
    assert session.hook("FileChanged", file_path=str(bell)).exit_code == 2

    session.hook("UserPromptSubmit")

    session.wait_for_stages(message_id, ["offered"])
    known_here = [step["stage"] for step in session.bob.ok("message", message_id)["steps"]]
    assert known_here[-1] == "offered"
    session.hook("Stop")
    session.wait_for_stages(message_id, ["offered", "read"])


class Codex:
    """A session of Codex at Bob's, with a program in its place that writes down how it is called."""

    def __init__(self, session: Session, directory: Path) -> None:
        self.session = session
        self.arguments = directory / "arguments"
        queue = directory / "bin" / "codex"
        queue.parent.mkdir()
        queue.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {self.arguments}\n')
        queue.chmod(0o700)
        self._path = f"{queue.parent}:/usr/bin:/bin"

    def hook(self, event: str) -> Result:
        given = {"hook_event_name": event, "session_id": self.session.key, "cwd": "/src/payments-api"}
        return self.session.bob.run("hook", "codex", stdin=json.dumps(given), PATH=self._path)

    def first_turn(self) -> None:
        """With which a session begins; its queue is used from then on."""
        for event in ("SessionStart", "UserPromptSubmit", "Stop"):
            self.hook(event)

    def writes(self, text: str) -> Any:
        """What its agent sends to Alice, which names no message."""
        return self.session.bob.ok("send", "alice.laptop", text, "--as", "payments-api", "--wait", "delivered")


def test_the_arguments_of_no_process_hold_a_text(session: Session, tmp_path: Path) -> None:
    """Every user can read them. What wakes an idle Codex says that something waits; the hook has what it is."""
    codex = Codex(session, tmp_path)
    codex.first_turn()
    message_id = session.send("for this machine's user alone")
    wait_until(codex.arguments.exists, "Codex is called")
    session.send("and this")
    prompt = codex.hook("UserPromptSubmit")
    session.wait_for_stages(message_id, ["offered"])
    codex.hook("Stop")

    assert set(codex.arguments.read_text().splitlines()) == {"queue", "--thread", session.key, "--message", NOTICE}
    assert all(line in context(prompt) for line in ("| for this machine's user alone", "| and this"))
    session.wait_for_stages(message_id, ["offered", "read"])


def test_codex_is_called_once_more_when_nothing_comes_of_it(session: Session, tmp_path: Path) -> None:
    """It may forget what was queued at the very end of a turn."""
    codex = Codex(session, tmp_path)
    codex.first_turn()
    session.send("are you there?")

    wait_until(lambda: codex.arguments.exists() and codex.arguments.read_text().count("queue\n") == 2, "both calls", 60)


def test_the_turn_that_codex_is_called_to_continues_what_it_was_shown_before(session: Session, tmp_path: Path) -> None:
    """No user spoke in between: what it writes then is as far from its beginning as the deepest of both."""
    codex = Codex(session, tmp_path)
    session.alice.ok("budget", "hops", "2")
    codex.hook("SessionStart")
    codex.hook("UserPromptSubmit")
    session.send("begin")
    assert "| begin" in codex.hook("Stop").stdout
    first = codex.writes("one answer on")
    session.send("two answers on", "--reply-to", first["id"])
    assert "| two answers on" in codex.hook("Stop").stdout
    codex.hook("Stop")
    session.send("something else")
    wait_until(codex.arguments.exists, "Codex is called")
    assert "| something else" in context(codex.hook("UserPromptSubmit"))

    woken = codex.writes("three answers on")
    codex.hook("UserPromptSubmit")
    anew = codex.writes("its user spoke")

    assert (woken["stage"], woken["to"][0]["code"]) == ("held", "hops")
    assert anew["stage"] == "delivered"


def test_only_an_urgent_message_interrupts(session: Session) -> None:
    """`now` is shown at the end of a tool, `next` at the end of the turn."""
    session.hook("SessionStart")
    session.hook("UserPromptSubmit")
    session.bob.ok("grant", "alice", "now")
    session.send("look at this when you can")
    session.send("stop the deploy", "--priority", "now")

    tool, turn_end = session.hook("PostToolUse"), session.hook("Stop")

    assert "| stop the deploy" in context(tool)
    assert "when you can" not in context(tool)
    assert "| look at this when you can" in context(turn_end)


def test_two_tools_that_run_at_once_confirm_nothing(session: Session) -> None:
    """The second one's end comes before the request that carries what the first one's end was given."""
    session.bob.ok("grant", "alice", "now")
    session.hook("SessionStart")
    session.hook("UserPromptSubmit")
    message_id = session.send("stop the deploy", "--priority", "now")
    shown = context(session.hook("PostToolUse", tool_use_id="a"))
    session.note(said(shown))

    session.hook("PostToolUse", tool_use_id="b")
    session.wait_for_stages(message_id, ["offered"])
    session.note(ANSWER)
    session.hook("PostToolUse", tool_use_id="c")

    session.wait_for_stages(message_id, ["offered", "read"])


def test_a_session_killed_before_its_record_was_written_is_shown_the_message_again(session: Session) -> None:
    """It is not in the conversation that `--resume` goes on with; and nobody was told that it was read."""
    session.note(ANSWER)
    session.hook("SessionStart", source="startup")
    session.hook("UserPromptSubmit")
    message_id = session.send("the build is red")
    lost = session.hook("Stop")

    resumed = session.hook("SessionStart", source="resume")

    assert "| the build is red" in context(lost)
    assert "| the build is red" in context(resumed)
    assert "read" not in session.stages(message_id)


def test_a_note_about_a_message_is_not_the_message(session: Session) -> None:
    """What the record says of a queue, of a request or of a hook's own output is no part of the conversation."""
    session.hook("SessionStart", source="startup")
    session.hook("UserPromptSubmit")
    session.send("the build is red")
    text = context(session.hook("Stop"))
    notes = [{"type": "queue-operation", "content": text}, {"type": "api-request-blob", "message": text}]
    session.note(*notes, {"type": "attachment", "attachment": {"type": "hook_success", "stdout": text}}, ANSWER)

    resumed = session.hook("SessionStart", source="resume")

    assert "| the build is red" in context(resumed)


def test_a_session_killed_after_its_record_was_written_is_not_shown_the_message_again(session: Session) -> None:
    """It is in the conversation that `--resume` goes on with; it counts as read once the model has answered."""
    session.hook("SessionStart", source="startup")
    session.hook("UserPromptSubmit")
    message_id = session.send("the build is red")
    session.note(said(context(session.hook("Stop"))))

    resumed = session.hook("SessionStart", source="resume")
    assert context(resumed) == ""
    session.hook("UserPromptSubmit")
    session.wait_for_stages(message_id, ["offered"])
    session.note(ANSWER)

    session.wait_for_stages(message_id, ["offered", "read"])


def test_a_daemon_killed_between_offer_and_read_says_nothing_false(session: Session) -> None:
    """What the record shows is read; nothing is shown twice."""
    session.hook("SessionStart", source="startup")
    session.hook("UserPromptSubmit")
    message_id = session.send("the build is red")
    session.note(said(context(session.hook("Stop"))))

    session.bob.kill_daemon()
    session.note(ANSWER)
    resumed = session.hook("SessionStart", source="resume")

    assert context(resumed) == ""
    session.wait_for_stages(message_id, ["offered", "read"])


def test_a_peer_that_writes_a_label_in_a_body_confirms_nothing(session: Session) -> None:
    """The first line of another message's block, inside a body, is not taken for that message."""
    session.hook("SessionStart", source="startup")
    session.hook("UserPromptSubmit")
    message_id = session.send("the real one")
    session.hook("Stop")  # killed before it was written down
    session.note(said(f"| --- message {message_id}"), ANSWER)

    resumed = session.hook("SessionStart", source="resume")

    assert "| the real one" in context(resumed)
    assert "read" not in session.stages(message_id)


def test_a_turn_that_failed_leaves_an_idle_session_and_confirms_nothing(session: Session) -> None:
    """Its host reports no other end of it; the next message may wake the session."""
    session.hook("SessionStart")
    message_id = session.send("the build is red")
    session.hook("UserPromptSubmit")
    session.wait_for_stages(message_id, ["offered"])
    wait_until(lambda: session.status() == "busy", "it is busy")

    failed = session.hook("StopFailure", error="rate_limit")

    assert (failed.exit_code, failed.stdout) == (0, "")
    wait_until(lambda: session.status() == "idle", "it is idle")
    assert session.stages(message_id) == ["offered"]


def test_a_headless_session_is_never_made_to_wait_or_wake(session: Session) -> None:
    """There, a hook that would wake is waited for: it watches nothing and is told nothing by it."""
    started = session.hook("SessionStart", entrypoint="sdk-cli")
    session.send("are you there?")
    changed = session.hook("FileChanged", entrypoint="sdk-cli")

    assert "watchPaths" not in started.stdout
    assert (changed.exit_code, changed.stdout, changed.stderr) == (0, "", "")
    assert "| are you there?" in context(session.hook("UserPromptSubmit", entrypoint="sdk-cli"))


def test_a_subagent_is_shown_nothing(session: Session) -> None:
    """Its context ends with it: a message shown there would be lost to the session."""
    session.bob.ok("grant", "alice", "now")
    session.hook("SessionStart")
    session.hook("UserPromptSubmit")
    session.send("stop the deploy", "--priority", "now")

    inside = session.hook("PostToolUse", agent_id="a1")

    assert inside.stdout == ""
    assert "| stop the deploy" in context(session.hook("PostToolUse"))


def test_a_session_that_ends_leaves_presence(session: Session) -> None:
    """SessionEnd closes it; its bell goes with it."""
    started = session.hook("SessionStart")
    bell = Path(json.loads(started.stdout)["hookSpecificOutput"]["watchPaths"][0])

    ended = session.hook("SessionEnd", reason="exit")

    assert ended.exit_code == 0
    wait_until(lambda: not bell.exists(), "the bell is gone")
    labels = [one["label"] for peer in session.bob.ok("peers")["peers"] for one in peer["sessions"]]
    assert "payments-api" not in labels


@pytest.mark.parametrize("event", ["", "not json", "[]", "{}", '{"hook_event_name": 7}', "\x00"])
def test_whatever_a_host_writes_a_hook_says_nothing_and_ends_well(tmp_path: Path, event: str) -> None:
    """Also without any daemon, and it starts none: the user's own turn goes on."""
    with machine(tmp_path, "bob") as bob:
        done = bob.run("hook", "claude-code", stdin=event)

        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        assert not (bob.config_dir / "daemon.json").exists()


def test_without_a_daemon_only_the_beginning_of_a_session_starts_one(tmp_path: Path) -> None:
    """A prompt is never held up by it."""
    with machine(tmp_path, "bob") as bob:
        prompt = bob.run("hook", "claude-code", stdin='{"hook_event_name": "UserPromptSubmit", "session_id": "s"}')
        ran_before = (bob.config_dir / "daemon.json").exists()
        start = bob.run("hook", "claude-code", stdin='{"hook_event_name": "SessionStart", "session_id": "s"}')

        assert (prompt.exit_code, prompt.stdout) == (0, "")
        assert not ran_before
        assert start.exit_code == 0
        assert bob.daemon_pid()
