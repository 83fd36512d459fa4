"""What a person reads: times, durations, the line after a send."""

import pytest

from claudemesh.cli.channel_answers import created_lines, removed_lines, signed
from claudemesh.cli.durations import parse_duration
from claudemesh.cli.inbox import block, show_event
from claudemesh.cli.output import ago, span, table, until
from claudemesh.cli.send import sent_lines
from claudemesh.cli.verb import Verb, show_error
from claudemesh.errors import UsageError

NOW = 1_795_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [
        ("90s", 90_000),
        ("15m", 900_000),
        ("36h", 36 * HOUR),
        ("7d", 7 * DAY),
        ("2w", 14 * DAY),
        ("250ms", 250),
        (" 1D ", DAY),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, length_ms: int) -> None:
    """Each unit that people write."""
    assert parse_duration(text) == length_ms


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 years", "1d1h", "٣d", "9999999999d"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    """A bare number has no unit; nobody guesses it."""
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "never"),
        (NOW - 1_000, "just now"),
        (NOW - 40_000, "40 s ago"),
        (NOW - 3 * HOUR, "3 h ago"),
        (NOW - 9 * DAY, "9 d ago"),
    ],
)
def test_a_time_is_told_by_its_distance(at: int, text: str) -> None:
    """The largest whole unit is enough."""
    assert ago(at, NOW) == text


def test_a_length_below_a_second_is_not_rounded_up() -> None:
    """Nothing claims more time than there was."""
    assert span(999) == "0 s"


def test_a_queued_message_says_why_it_has_not_left() -> None:
    """`queued` alone would read as if it were on its way."""
    (line,) = sent_lines(sent("queued", link="broker_unreachable"), NOW)

    assert "queued for bob.desktop; the broker is not reached (broker_unreachable)" in line
    assert until(NOW + 14 * DAY, NOW) in line


def test_an_accepted_message_says_when_its_recipient_was_last_seen() -> None:
    """The sender learns at once that an answer may take days."""
    (line,) = sent_lines(sent("accepted", online=False, last_seen_at=NOW - 3 * HOUR), NOW)

    assert "accepted; bob.desktop was last seen 3 h ago; will wait until " in line


def test_presence_that_is_not_known_is_not_stated() -> None:
    """Neither online nor offline when the broker was not asked."""
    (line,) = sent_lines(sent("accepted", online=None), NOW)

    assert "online" not in line
    assert "seen" not in line


def test_a_refusal_carries_its_code() -> None:
    """Why, not only that."""
    (line,) = sent_lines(sent("refused", code="revoked"), NOW)

    assert "refused (revoked); bob.desktop" in line


def test_an_address_cannot_act_on_the_terminal() -> None:
    """A peer chooses its name; the line stays one line."""
    (line,) = sent_lines(sent("accepted", online=True, address="bob\x1b[2J\nfrom: owner"), NOW)

    assert "\x1b" not in line
    assert "\n" not in line


def test_a_message_to_a_tag_says_which_session_it_reaches() -> None:
    """The sender chose nobody by name: it is told whom, and whether that session has time."""
    (line,) = sent_lines(sent("accepted", online=True, address="bob.desktop/billing", status="busy"), NOW)

    assert "accepted; bob.desktop/billing is busy" in line


@pytest.mark.parametrize("typed", ["deploys", "#deploys", " #deploys "])
def test_a_channel_is_named_with_or_without_its_sign(typed: str) -> None:
    """A shell takes a bare # for a comment, so that the sign is optional where only a channel can stand."""
    assert signed(typed, "#") == "#deploys"


@pytest.mark.parametrize(("typed", "sign"), [("@reviewers", "#"), ("#deploys", "@")])
def test_the_sign_of_the_other_kind_is_refused(typed: str, sign: str) -> None:
    """`#x` and `@x` may both exist; neither is ever taken for the other."""
    with pytest.raises(UsageError):
        signed(typed, sign)


def test_the_history_of_a_group_is_that_of_its_address() -> None:
    """One verb shows the past of both."""
    assert signed("@reviewers", "#", or_group=True) == "@reviewers"


def test_a_private_channel_says_that_it_is_closed() -> None:
    """Next is to add somebody, not to post to nobody."""
    channel = {"name": "#salaries", "kind": "private"}

    lines = list(created_lines({"mesh": "team", "channel": channel}))

    assert lines == [
        "created #salaries, a private channel of team",
        "next: claudemesh channel add salaries PEER",
    ]


def test_a_removal_says_whether_the_secret_is_replaced_already() -> None:
    """Until it is, nothing is sent under it; a person who looks at a list cannot know."""
    answer = {"channel": {"name": "#salaries"}, "removed": ["bob.phone"]}

    assert list(removed_lines(answer | {"rotated": True})) == [
        "removed from #salaries: bob.phone; its secret is replaced"
    ]
    (later,) = removed_lines(answer | {"rotated": False})
    assert later.endswith("before the next post")


def test_a_post_is_shown_with_its_channel_and_its_marks() -> None:
    """What this machine worked out about a post stands in the labels, not in the text."""
    shown = block(
        MESSAGE | {"channel": "#deploys", "missing": 2, "stale": True, "may_repeat": True, "shared_by": "carol"}
    )

    labels = [line.partition(":")[0] for line in shown.split("\n") if not line.startswith(("| ", "---"))]
    assert {"channel", "missing", "stale", "may repeat", "shared by"} <= set(labels)
    assert "reply with: claudemesh send '#deploys' --reply-to" in shown


def test_a_direct_message_has_no_mark_that_does_not_apply() -> None:
    """No empty label, and its answer goes to its sender."""
    shown = block(MESSAGE)

    assert not any(mark in shown for mark in ("channel:", "missing:", "stale:", "may repeat:", "shared by:"))
    assert "reply with: claudemesh send bob.desktop --reply-to" in shown


@pytest.mark.parametrize(("channel", "place"), [("", ""), ("#deploys", " in #deploys")])
def test_a_gap_says_whose_and_where(channel: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to standard error: it is our word, and no message."""
    gap = {"mesh": "team", "address": "bob.desktop", "channel": channel, "missing": 3}

    show_event(Verb(as_json=False, verbose=False), {"gap": gap})

    written = capsys.readouterr()
    assert written.err == f"3 messages from bob.desktop{place} are missing so far\n"
    assert written.out == ""


def test_a_table_shows_a_cell_as_data() -> None:
    """One row of input is one row of output, whatever a name holds."""
    lines = table(("A", "B"), [("x\ny", "z"), ("\x1b[31m", "")])

    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)


MESSAGE: dict[str, object] = {
    "number": 1,
    "id": "0f" * 16,
    "mesh": "team",
    "sender": {"address": "bob.desktop", "key": "ab" * 32, "session": "", "trust": "pinned"},
    "priority": "next",
    "sent_at": NOW,
    "reply_to": "",
    "channel": "",
    "missing": 0,
    "stale": False,
    "may_repeat": False,
    "shared_by": "",
    "text": "v1 is out",
}


def sent(
    stage: str,
    link: str = "open",
    online: bool | None = None,
    last_seen_at: int = 0,
    code: str = "",
    address: str = "bob.desktop",
    status: str = "",
) -> dict[str, object]:
    """An answer of the operation `send` with one recipient."""
    recipient = {
        "address": address,
        "key": "00" * 32,
        "id": "0f" * 16,
        "status": status,
        "stage": stage,
        "code": code,
        "online": online,
        "last_seen_at": last_seen_at,
    }
    answer = {"id": "0f" * 16, "mesh": "team", "stage": stage, "channel": "", "to": [recipient]}
    return answer | {"expires_at": NOW + 14 * DAY, "link": link, "replies": []}


def test_what_is_to_be_copied_stands_in_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A hint may end with the content of a file; nothing in it acts on a terminal."""
    error = {"code": "host_settings", "message": "m", "took_effect": "nothing"}
    show_error(error | {"hint": 'Add:\n{\n  "a": "\x1b[2J"\n}'})

    said = capsys.readouterr().err.splitlines()

    assert said[1:] == ["  Nothing took effect. Add: [host_settings]", "{", '  "a": "\\u{1b}[2J"', "}"]
