"""Offers in the journal: the state × event table of docs/spec/surfacing.md §3, and what is offered once."""

import sqlite3
from pathlib import Path
from typing import Any, Final

import pytest

from claudemesh.peer.journal import inbox, offers
from claudemesh.peer.journal.inbox import InboxDraft
from claudemesh.peer.journal.offers import OfferDraft, Offerer, Told, Wanted
from claudemesh.types import MeshId, MessageId, PeerId, SessionId, UnixMillis

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec" / "surfacing.md"
MESH = MeshId("3e" * 32)
SENDER = PeerId("a1" * 32)
API, WEB = Told("api"), Told("web")
SESSION = SessionId("5e" * 32)
NOW = UnixMillis(1_795_000_000_000)
LATER = UnixMillis(NOW + 1_000)
AGENT: Final = "claude-code:one"
STATES: Final = ("taken", "handed", "confirmed", "withdrawn")
AFTER: Final[dict[tuple[str, str], tuple[str, bool, bool]]] = {
    # (state, event): (state, whether `offered` is stated now, whether `read` is)
    ("taken", "hand"): ("handed", True, False),
    ("taken", "confirm"): ("confirmed", True, True),
    ("taken", "withdraw"): ("withdrawn", False, False),
    ("handed", "hand"): ("handed", False, False),
    ("handed", "confirm"): ("confirmed", False, True),
    ("handed", "withdraw"): ("withdrawn", False, False),
    ("confirmed", "hand"): ("confirmed", False, False),
    ("confirmed", "confirm"): ("confirmed", False, False),
    ("confirmed", "withdraw"): ("confirmed", False, False),
    ("withdrawn", "hand"): ("withdrawn", False, False),
    ("withdrawn", "confirm"): ("withdrawn", False, False),
    ("withdrawn", "withdraw"): ("withdrawn", False, False),
}


def arrive(journal: sqlite3.Connection, number: int, **changes: Any) -> int:
    """A message comes into the inbox; returns its row."""
    usual = InboxDraft(MessageId(f"{number:032x}"), SENDER, None, None, b"frame", b"s", "att", NOW, NOW)
    row = inbox.add(journal, MESH, usual._replace(**changes))
    assert row is not None
    return row


def offer(journal: sqlite3.Connection, row: int, begins: int = 0, ends: int = 9, agent: str = AGENT) -> int:
    """Offer a part of a message of 9 characters; 0 where it was offered before."""
    offerer = Offerer(agent, SESSION, "api", "hook")
    (number,) = offers.add(journal, MESH, offerer, [OfferDraft(row, begins, ends, 9)], NOW)
    return number


def hand(journal: sqlite3.Connection, number: int, agent: str = AGENT) -> list[tuple[int, str]]:
    return offers.mark_handed(journal, MESH, agent, [number], LATER)


def confirm(journal: sqlite3.Connection, number: int, agent: str = AGENT) -> list[tuple[int, str]]:
    return offers.confirm(journal, MESH, agent, SESSION, [number], "next_event", LATER)


def happen(journal: sqlite3.Connection, number: int, event: str) -> tuple[bool, bool]:
    """One event, as the offer book has it; returns what is stated now."""
    offered = read = False
    match event:
        case "hand":
            offered = bool(hand(journal, number))
        case "confirm":
            offered = bool(hand(journal, number))
            read = bool(confirm(journal, number))
        case "withdraw":
            offers.withdraw(journal, AGENT, [number], LATER)
    return offered, read


def state_of(journal: sqlite3.Connection, number: int) -> str:
    row = journal.execute("SELECT handed_at, confirmed_at, withdrawn_at FROM offers WHERE id = ?", (number,)).fetchone()
    if row[2] is not None:
        return "withdrawn"
    return "confirmed" if row[1] is not None else "handed" if row[0] is not None else "taken"


def wanted(
    agent: str = AGENT, label: str = "api", rank: int = 2, acks: bool = True, others: tuple[str, ...] = ()
) -> Wanted:
    return Wanted(agent, label, others, rank, acks)


def waiting(journal: sqlite3.Connection, which: Wanted) -> list[int]:
    return [row.id for row in offers.find_waiting(journal, MESH, which, 100)]


@pytest.mark.parametrize(("state", "event"), AFTER)
def test_every_state_and_event(journal: sqlite3.Connection, state: str, event: str) -> None:
    """No event takes back a confirmation, and nothing is stated twice."""
    number = offer(journal, arrive(journal, 1))
    for step in {"taken": [], "handed": ["hand"], "confirmed": ["confirm"], "withdrawn": ["withdraw"]}[state]:
        happen(journal, number, step)

    stated = happen(journal, number, event)

    assert (state_of(journal, number), *stated) == AFTER[state, event]


def test_the_table_is_complete() -> None:
    """Every pair of a state and an event is there."""
    assert set(AFTER) == {(state, event) for state in STATES for event in ("hand", "confirm", "withdraw")}


def test_the_table_is_that_of_the_specification() -> None:
    """Row by row: the state that follows, or `unchanged`."""
    lines = SPEC.read_text().split("\n")
    begin = lines.index("| state | `hand` | `confirm` | `withdraw` |") + 2
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[begin : begin + len(STATES)]]
    stated = {
        (row[0], event): row[0] if cell == "unchanged" else cell.split(",")[0]
        for row in rows
        for event, cell in zip(("hand", "confirm", "withdraw"), row[1:], strict=True)
    }

    assert stated == {pair: after for pair, (after, _, _) in AFTER.items()}


@pytest.mark.parametrize("state", STATES)
def test_only_a_withdrawn_part_is_offered_again(journal: sqlite3.Connection, state: str) -> None:
    """The journal itself refuses a second row."""
    row = arrive(journal, 1)
    number = offer(journal, row)
    for step in {"taken": [], "handed": ["hand"], "confirmed": ["confirm"], "withdrawn": ["withdraw"]}[state]:
        happen(journal, number, step)

    assert bool(offer(journal, row)) is (state == "withdrawn")


def test_events_of_another_session_change_nothing(journal: sqlite3.Connection) -> None:
    """An offer is settled by the session that it was made to."""
    number = offer(journal, arrive(journal, 1))

    assert hand(journal, number, "another") == []
    assert confirm(journal, number, "another") == []
    offers.withdraw(journal, "another", [number], LATER)
    assert state_of(journal, number) == "taken"


@pytest.mark.parametrize(
    ("parts", "confirmed", "is_whole"),
    [
        ([(0, 9)], [0], True),
        ([(0, 5), (5, 9)], [0], False),
        ([(0, 5), (5, 9)], [1], False),
        ([(0, 5), (5, 9)], [0, 1], True),
        ([(0, 4), (5, 9)], [0, 1], False),
        ([(0, 0)], [0], False),
    ],
)
def test_a_message_is_read_when_its_parts_reach_from_end_to_end(
    journal: sqlite3.Connection, parts: list[tuple[int, int]], confirmed: list[int], is_whole: bool
) -> None:
    """A gap, a missing end, a missing beginning: none of them is the message."""
    row = arrive(journal, 1)
    numbers = [offer(journal, row, *part) for part in parts]
    read = [one for index in confirmed for one in confirm(journal, numbers[index])]

    assert bool(read) is is_whole
    assert offers.is_whole(journal, row, AGENT) is is_whole


def test_the_most_urgent_and_oldest_comes_first(journal: sqlite3.Connection) -> None:
    """Whatever the order of arrival; what is less urgent than wanted, and acknowledgements, stay away."""
    low, next_, now, ack = (
        arrive(journal, 1, rank=2),
        arrive(journal, 2),
        arrive(journal, 3, rank=0),
        arrive(journal, 4, is_ack=True),
    )

    assert waiting(journal, wanted()) == [now, next_, ack, low]
    assert waiting(journal, wanted(rank=1, acks=False)) == [now, next_]
    assert waiting(journal, wanted(rank=0, acks=False)) == [now]


def test_a_message_to_a_session_is_for_its_key_its_former_keys_and_its_label(journal: sqlite3.Connection) -> None:
    """A restart gives a session another key; a new one in the same place has the same label."""
    former, stranger = SessionId("f0" * 32), SessionId("f1" * 32)
    offers.note_session(journal, MESH, former, AGENT, API, NOW)
    offers.note_session(journal, MESH, stranger, "other", WEB, NOW)
    own, other = arrive(journal, 1, session=former), arrive(journal, 2, session=stranger)

    assert waiting(journal, wanted()) == [own]
    assert waiting(journal, wanted("new", "api")) == [own]
    assert waiting(journal, wanted("new", "web")) == [other]
    assert waiting(journal, wanted("new", "else")) == []


def test_what_an_ended_session_did_not_read_is_for_the_others(journal: sqlite3.Connection) -> None:
    """And for nobody else once it was read, or while that session is open."""
    row = arrive(journal, 1)
    number = offer(journal, row)

    assert waiting(journal, wanted("new", others=(AGENT,))) == []
    assert waiting(journal, wanted("new")) == [row]
    confirm(journal, number)
    assert waiting(journal, wanted("new")) == []


def test_a_session_that_goes_by_another_name_keeps_what_it_was_shown(journal: sqlite3.Connection) -> None:
    """The host's own id may be learnt late."""
    row = arrive(journal, 1)
    offer(journal, row)

    offers.move_agent(journal, MESH, AGENT, "claude-code:two")

    assert waiting(journal, wanted("claude-code:two")) == []


def test_what_was_told_of_a_session_is_remembered(journal: sqlite3.Connection) -> None:
    """The newest of it, whatever the mesh and the key."""
    first = Told("api", "wakeable", "moving payments", ("repo=billing", "lang=go"))
    offers.note_session(journal, MESH, SESSION, AGENT, Told("before"), NOW)
    offers.note_session(journal, MESH, SESSION, AGENT, first, NOW)
    offers.note_session(journal, MeshId("3f" * 32), SessionId("f0" * 32), AGENT, Told("api-2"), LATER)

    assert offers.load_told(journal, AGENT) == Told("api-2")
    assert offers.load_told(journal, "nobody") is None
    journal.execute("DELETE FROM agent_sessions WHERE label = 'api-2'")
    assert offers.load_told(journal, AGENT) == first
