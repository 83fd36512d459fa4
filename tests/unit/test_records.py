"""What hosts' own records of a conversation say of a message; the lines are the real programs', shortened."""

import json
from pathlib import Path
from typing import Any

import pytest

from claudemesh.hosts.records import Rest, find_rest, findings
from claudemesh.hosts.records.gemini import was_stopped
from claudemesh.types import UnixMillis

ID, OTHER = "0f" * 16, "1e" * 16
BLOCK = f"--- message {ID}\nfrom:       alice.laptop\n| the disk is full\n--- end of message {ID}."
OFFERED_AT = UnixMillis(1_796_062_500_000)
BEFORE, AFTER = "2026-11-30T18:14:59.999Z", "2026-11-30T18:15:00.000Z"


class Record:
    """A file of JSON lines that a host writes."""

    def __init__(self, path: Path, host: str) -> None:
        self.path = path
        self.host = host
        path.write_bytes(b"")

    def add(self, *entries: dict[str, Any]) -> "Record":
        """What the host notes, one after the other."""
        with self.path.open("a") as file:
            file.writelines(json.dumps({"timestamp": AFTER} | entry, ensure_ascii=False) + "\n" for entry in entries)
        return self

    def of(self, message: str = ID, since: UnixMillis = OFFERED_AT) -> str:
        """What is found of a message."""
        found = findings(self.host, self.path, {message: since})
        assert found is not None
        return found[message]


# Claude Code


@pytest.fixture
def claude(tmp_path: Path) -> Record:
    """A conversation with one turn behind it."""
    return Record(tmp_path / "claude.jsonl", "claude-code").add(
        entry("a1", "", "user", "hello"), answer("a2", "a1", "msg_1"), entry("a3", "a2", "system", "")
    )


def entry(uuid: str, parent: str, kind: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "parentUuid": parent or None, "type": kind, "message": {"content": content}, **fields}


def answer(uuid: str, parent: str, message: str, content: Any = "I see", **fields: Any) -> dict[str, Any]:
    found = entry(uuid, parent, "assistant", content, **fields)
    return found | {"message": {"role": "assistant", "id": message, "model": "opus"} | found["message"]}


def added(uuid: str, parent: str, text: str = BLOCK, **fields: Any) -> dict[str, Any]:
    """What a hook added to the conversation."""
    attachment = {"type": "hook_additional_context", "content": [text]}
    return {"uuid": uuid, "parentUuid": parent, "type": "attachment", "attachment": attachment, **fields}


def test_a_message_is_answered_once_a_model_has_answered_after_it(claude: Record) -> None:
    """And is only there before that; of another one nothing is said."""
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1"))
    before = claude.of()
    claude.add(answer("b3", "b2", "msg_2"))

    assert (before, claude.of(), claude.of(OTHER)) == ("present", "answered", "absent")


@pytest.mark.parametrize("fields", [{"isApiErrorMessage": True}, {"isSidechain": True}])
def test_what_no_model_wrote_into_this_conversation_is_no_answer(claude: Record, fields: dict[str, Any]) -> None:
    """A request that failed leaves an answer in the model's place; a subagent has one of its own."""
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1"), answer("b3", "b2", "msg_2", **fields))

    assert claude.of() == "present"


def test_an_answer_that_the_program_made_up_is_none(claude: Record) -> None:
    """When a conversation goes on after a kill, say."""
    made_up = answer("b3", "b2", "msg_2")
    made_up["message"]["model"] = "<synthetic>"
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1"), made_up)

    assert claude.of() == "present"


def test_what_was_added_to_a_prompt_that_its_user_took_back_is_abandoned(claude: Record) -> None:
    """The next prompt follows what was before it; an answer to that one is no answer to this."""
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1"), entry("c1", "a3", "user", "no, go back"))
    before = claude.of()
    claude.add(answer("c2", "c1", "msg_2"))

    assert (before, claude.of()) == ("present", "abandoned")


def test_a_message_that_is_shown_again_counts_from_then_on(claude: Record) -> None:
    """The place where it was abandoned is older than the offer."""
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1", timestamp=BEFORE))
    claude.add(entry("c1", "a3", "user", "no"), answer("c2", "c1", "msg_2"))
    before = claude.of()
    claude.add(added("c3", "c2"))
    again = claude.of()
    claude.add(answer("c4", "c3", "msg_3"))

    assert (before, again, claude.of()) == ("absent", "present", "answered")


def test_the_rest_of_the_answer_that_called_the_tool_is_no_answer(claude: Record) -> None:
    """Of two tools the first one may end before the call of the second is noted."""
    claude.add(
        entry("b1", "a3", "user", "go on"),
        answer("b2", "b1", "msg_2", [{"type": "tool_use"}]),
        entry("b3", "b2", "user", [{"type": "tool_result", "tool_use_id": "t1"}]),
        added("b4", "b3"),
        answer("b5", "b2", "msg_2", [{"type": "tool_use"}]),
    )
    before = claude.of()
    claude.add(entry("b6", "b5", "user", [{"type": "tool_result", "tool_use_id": "t2"}]), answer("b7", "b6", "msg_3"))

    assert (before, claude.of()) == ("present", "answered")


def test_a_message_is_answered_also_when_the_conversation_was_made_shorter_meanwhile(claude: Record) -> None:
    """The shorter one says which it goes on with."""
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1"))
    claude.add(entry("c1", "", "system", "", logicalParentUuid="b2"), answer("c2", "c1", "msg_2"))

    assert claude.of() == "answered"


def test_a_note_about_a_message_is_not_the_message_in_the_record(claude: Record) -> None:
    """Of a queue, of a request, of a hook's own output; nor is a body in which somebody quotes its label."""
    hook = {"type": "attachment", "attachment": {"type": "hook_success", "stdout": BLOCK}}
    claude.add({"type": "queue-operation", "content": BLOCK}, {"type": "api-request-blob", "message": BLOCK}, hook)
    claude.add(added("b1", "a3", f"--- message {OTHER}\n| --- message {ID}\n| <x>--- message {ID}"))

    assert claude.of() == "absent"


def test_a_line_that_a_kill_cut_off_is_none(claude: Record) -> None:
    """The rest is read."""
    claude.add(entry("b1", "a3", "user", "go on"), added("b2", "b1"), answer("b3", "b2", "msg_2"))
    claude.path.write_bytes(claude.path.read_bytes()[:-5])

    assert claude.of() == "present"


# Codex


@pytest.fixture
def codex(tmp_path: Path) -> Record:
    """A rollout with one turn behind it."""
    return Record(tmp_path / "rollout.jsonl", "codex").add(given("hello"), ended("reply 0"))


def given(text: str, role: str = "user") -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "response_item", "payload": {"type": "message", "role": role, "content": content}}


def ended(said: str | None, kind: str = "task_complete") -> dict[str, Any]:
    return {"type": "event_msg", "payload": {"type": kind, "last_agent_message": said}}


def test_a_turn_of_codex_that_ended_with_an_answer_answers_what_stands_before_it(codex: Record) -> None:
    """One that failed or was interrupted does not; the next one does, since what was given stays."""
    codex.add(given("Your user did not write this.\n\n" + BLOCK), ended(None), ended(None, "turn_aborted"))
    before = codex.of()
    codex.add(given("go on"), ended("reply 1"))

    assert (before, codex.of(), codex.of(OTHER)) == ("present", "answered", "absent")


def test_what_waits_in_the_queue_of_codex_is_not_in_its_record(codex: Record) -> None:
    """Its user's own turn ends meanwhile."""
    codex.add(given("something else"), ended("reply 1"))

    assert codex.of() == "absent"


@pytest.mark.parametrize(
    ("answers_before", "goes_back_to", "answers_after", "found"),
    [
        (None, "hello", None, "abandoned"),
        (None, "hello", "reply 2", "abandoned"),
        ("reply 1", "hello", None, "answered"),
        (None, "end", None, "present"),
        (None, "end", "reply 2", "answered"),
    ],
)
def test_what_a_user_of_codex_went_back_behind_is_abandoned_unless_it_was_answered(
    tmp_path: Path, answers_before: str | None, goes_back_to: str, answers_after: str | None, found: str
) -> None:
    """The conversation goes on in another record, which says up to where it has the former one."""
    day = tmp_path / "2026" / "11" / "30"
    day.mkdir(parents=True)
    former = Record(day / "rollout-1-thread7.jsonl", "codex").add(given("hello"), ended("reply 0"))
    ends = former.path.stat().st_size
    former.add(given(BLOCK), ended(answers_before))
    ends = former.path.stat().st_size if goes_back_to == "end" else ends
    base = {"thread_id": "thread7", "end_byte_offset": ends}
    record = Record(day / "rollout-2-thread7_2.jsonl", "codex")

    record.add({"type": "session_meta", "payload": {"history_base": base}}, given("no"), ended(answers_after))

    assert record.of() == found


def test_of_two_records_that_a_rollout_may_go_on_with_nothing_is_concluded(tmp_path: Path) -> None:
    """It does not name the file."""
    day = tmp_path / "2026" / "11" / "30"
    day.mkdir(parents=True)
    for number in (1, 2):
        Record(day / f"rollout-{number}-thread7.jsonl", "codex").add(given(BLOCK))
    base = {"thread_id": "thread7", "end_byte_offset": 0}
    record = Record(day / "rollout-3-thread7.jsonl", "codex")

    record.add({"type": "session_meta", "payload": {"history_base": base}}, given("no"), ended("reply 1"))

    assert record.of() == "absent"


# Gemini CLI


@pytest.fixture
def gemini(tmp_path: Path) -> Record:
    """A record with one turn behind it."""
    return Record(tmp_path / "session.jsonl", "gemini").add(turn("1", "user", "hello"), turn("2", "gemini", "reply 0"))


def turn(number: str, kind: str, text: str) -> dict[str, Any]:
    return {"id": number, "type": kind, "content": [{"text": text}]}


def test_an_entry_of_the_model_after_a_message_of_gemini_answers_it(gemini: Record) -> None:
    """A request that failed leaves none."""
    gemini.add(turn("3", "user", f"go on<hook_context>{BLOCK}</hook_context>"), turn("4", "error", "[API Error]"))
    before = gemini.of()
    gemini.add(turn("5", "user", "go on"), turn("6", "gemini", "reply 1"))

    assert (before, gemini.of(), gemini.of(OTHER)) == ("present", "answered", "absent")


def test_what_a_user_of_gemini_interrupted_is_abandoned(gemini: Record) -> None:
    """The conversation is then written anew without it."""
    shorter = {"$set": {"messages": [turn("1", "user", "hello"), turn("2", "gemini", "reply 0")]}}
    gemini.add(turn("3", "user", f"go on<hook_context>{BLOCK}</hook_context>"), turn("4", "info", "cancelled"), shorter)
    gemini.add(turn("5", "user", "go back"), turn("6", "gemini", "reply 1"))

    assert gemini.of() == "abandoned"


@pytest.mark.parametrize(("to", "found"), [("1", "abandoned"), ("3", "abandoned"), ("4", "present")])
def test_what_a_user_of_gemini_goes_back_behind_is_abandoned(gemini: Record, to: str, found: str) -> None:
    """That entry, and all that follows it, are no part of the conversation any more."""
    gemini.add(turn("3", "user", f"go on<hook_context>{BLOCK}</hook_context>"), turn("4", "error", "[API Error]"))

    gemini.add({"$rewindTo": to})

    assert gemini.of() == found


def test_a_new_state_of_what_the_model_had_said_is_no_answer(gemini: Record) -> None:
    """What its tools returned is noted under the same id, after what was added to it."""
    gemini.add(turn("3", "gemini", "I will look"), turn("4", "user", f"<hook_context>{BLOCK}</hook_context>"))
    gemini.add(turn("3", "gemini", "I will look"))
    before = gemini.of()
    gemini.add(turn("5", "gemini", "I have looked"))

    assert (before, gemini.of()) == ("present", "answered")


@pytest.mark.parametrize("host", ["claude-code", "codex", "gemini", "opencode"])
def test_of_a_record_that_is_not_there_nothing_is_concluded(host: str, tmp_path: Path) -> None:
    """Nor of an empty one, nor of a host whose record we do not read."""
    empty = tmp_path / "empty"
    empty.write_bytes(b"")

    assert [findings(host, path, {ID: OFFERED_AT}) for path in (tmp_path / "missing", empty)] == [None, None]


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ([], False),
        ([turn("4", "gemini", "reply 1")], False),
        ([turn("4", "info", "Request cancelled.")], True),
        ([turn("4", "info", "Request cancelled."), {"$set": {"messages": []}}], True),
        ([turn("4", "error", "[API Error]")], False),
    ],
)
def test_a_record_of_gemini_says_that_its_user_stopped_a_turn(gemini: Record, last: list[Any], found: bool) -> None:
    """When it wrote last, which it notes after every line, does not matter."""
    gemini.add(turn("3", "user", "go on"), *last, {"$set": {"lastUpdated": AFTER}})

    assert was_stopped(gemini.path) is found


# Whether a session waits for its user


@pytest.mark.parametrize(
    ("noted", "found"),
    [
        ({"status": "idle"}, Rest(OFFERED_AT)),
        ({"status": "shell"}, Rest(OFFERED_AT)),
        ({"status": "busy"}, None),
        ({"status": "waiting"}, None),
        ({"status": "idle", "sessionId": "another"}, None),
        ({"status": "idle", "statusUpdatedAt": "now"}, None),
        ({}, None),
    ],
)
def test_claude_code_notes_of_a_process_whether_it_waits(tmp_path: Path, noted: Any, found: Rest | None) -> None:
    """`shell`: a command runs in the background. In a question of its own, `waiting`, no turn can begin."""
    record = tmp_path / "projects" / "api" / "s1.jsonl"
    (tmp_path / "sessions").mkdir()
    note = {"pid": 7, "sessionId": "s1", "statusUpdatedAt": OFFERED_AT} | noted
    (tmp_path / "sessions" / "7.json").write_text(json.dumps(note))

    assert find_rest("claude-code", record, "s1", 7) == found
    assert find_rest("claude-code", record, "s1", 8) is None


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (["task_started"], None),
        (["task_started", "task_complete"], Rest(OFFERED_AT)),
        (["task_started", "turn_aborted"], Rest(OFFERED_AT, is_final=True)),
        (["turn_aborted", "task_started", "token_count"], None),
    ],
)
def test_a_rollout_of_codex_says_how_its_last_turn_stands(codex: Record, last: list[str], found: Rest | None) -> None:
    """What follows an end, such as settings that apply, begins no turn; after a stop its queue waits for its user."""
    codex.add(*(ended(None, kind) for kind in [*last, "thread_settings_applied"]))

    assert find_rest("codex", codex.path, "s1", 7) == found


def test_of_a_long_turn_that_does_not_end_nothing_is_concluded(codex: Record) -> None:
    """Its end alone is looked at, whatever stands before."""
    codex.add(ended(None, "task_started"), given("x" * 100_000))

    assert find_rest("codex", codex.path, "s1", 7) is None


@pytest.mark.parametrize("host", ["claude-code", "codex", "gemini", "opencode"])
def test_where_a_host_has_noted_nothing_no_session_is_at_rest(host: str, tmp_path: Path) -> None:
    """No such file, and a path of another shape."""
    assert [find_rest(host, path, "s1", 7) for path in (tmp_path / "missing", Path("missing"))] == [None, None]
