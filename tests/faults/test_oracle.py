"""The oracle of the fault tests finds what is lost, double or false: its verdict is worth what it can refuse."""

from collections import Counter
from typing import Any, NamedTuple, cast

import pytest

from claudemesh.protocol.roster import Roster
from tests.faults.journals import AuditLog, Received, Sent, Step
from tests.faults.oracle import Evidence, find_denied, find_double, find_false, find_lost
from tests.faults.seen import Letter, Report, Seen, Surfaced
from tests.faults.tally import Tally, summarise

SENT_AT = 1_000_000
BOB = "b0b"
HASH = "aa"


class Timelines(NamedTuple):
    """The timelines of one journal, whose evidence holds."""

    timelines: list[Step]

    def steps(self) -> list[Step]:
        return self.timelines


class WrongClock(NamedTuple):
    """A clock that was ahead for a while, and right before and after."""

    ahead_ms: int
    begins: int
    ends: int

    def true_times(self, shown_ms: int) -> list[int]:
        wrong = shown_ms - self.ahead_ms
        return [wrong] if self.begins <= wrong <= self.ends else [shown_ms]


class Life:
    """One message that went as it should; tests then spoil one thing."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.letter = Letter("1", "alice", "bob", "hello", answered=True)
        self.seen.letters["1"] = self.letter
        self.seen.surface(Surfaced(1, "bob", "1", "alice", "hello"))
        self.sent = {"1": Sent("1", BOB, "hello", "accepted", "delivered")}
        self.received = {"bob": [Received("1", "a11ce", "hello", SENT_AT + 20, "s", 1, "")]}
        self.inboxes: dict[str, list[dict[str, Any]]] = {"bob": [{"id": "1", "text": "hello"}]}
        self.steps = [
            Step("1", BOB, "accepted", "broker", SENT_AT + 10, (0, HASH)),
            Step("1", BOB, "delivered", "peer", SENT_AT + 20, None),
        ]
        self.told("accepted", "broker", SENT_AT + 11)
        self.told("delivered", "peer", SENT_AT + 30)
        self.audit = AuditLog([HASH], [SENT_AT + 10])
        self.clocks: dict[str, WrongClock] = {}

    def told(self, stage: str, witness: str, at: int) -> None:
        self.letter.reports[stage, witness] = Report(stage, witness, at)

    def lost(self) -> list[str]:
        return find_lost(self.seen, self.sent, self.received, self.inboxes)

    def double(self) -> list[str]:
        return self.seen.twice + find_double(self.received, self.inboxes)

    def false(self) -> list[str]:
        evidence = Evidence({}, {"bob": BOB}, Roster(), self.audit, clocks=self.clocks)
        journals: Any = {"alice": Timelines(self.steps)}
        found = find_false(evidence, self.seen, journals, self.received)
        return [*self.seen.wrong, *found, *find_denied(self.seen, self.sent)]


def tally_of(**flaws: list[str]) -> Tally:
    """Three faults of two kinds, and seven messages."""
    return Tally(Counter(kill=2, cut=1), 7, **{"lost": [], "double": [], "false": []} | flaws)


@pytest.fixture
def life() -> Life:
    return Life()


def test_a_message_that_arrived_once_and_was_reported_in_time_is_flawless(life: Life) -> None:
    """Nothing else is."""
    assert (life.lost(), life.double(), life.false()) == ([], [], [])


def test_a_message_that_its_sender_was_promised_and_that_is_nowhere_is_lost(life: Life) -> None:
    """The sender's daemon said that it is durable."""
    life.sent.clear()

    assert life.lost()


def test_an_accepted_message_that_did_not_arrive_is_lost(life: Life) -> None:
    """The broker had it."""
    life.sent["1"] = Sent("1", BOB, "hello", "accepted", "accepted")
    life.received["bob"].clear()

    assert life.lost()


@pytest.mark.parametrize("where", ["journal", "inbox", "agent"])
def test_a_message_that_is_missing_at_one_place_of_its_recipient_is_lost(life: Life, where: str) -> None:
    """It has to be in the journal, be listed, and have been surfaced."""
    {"journal": life.received["bob"], "inbox": life.inboxes["bob"], "agent": life.seen.surfaced}[where].clear()

    assert life.lost()


def test_a_message_with_another_text_is_lost(life: Life) -> None:
    """What arrived is not what was written."""
    life.inboxes["bob"][0]["text"] = "hell"

    assert life.lost()


def test_a_message_of_which_nobody_was_told_anything_may_not_exist(life: Life) -> None:
    """Its request was cut off before it was durable."""
    life.sent.clear()
    life.letter.answered = False

    assert life.lost() == []


@pytest.mark.parametrize("counter", [1, 2])
def test_a_message_that_is_in_an_inbox_twice_is_double(life: Life, counter: int) -> None:
    """Whether it was stored again or sealed again."""
    life.received["bob"].append(life.received["bob"][0]._replace(counter=counter))

    assert life.double()


def test_a_message_that_is_listed_twice_is_double(life: Life) -> None:
    """Its reader sees two."""
    life.inboxes["bob"] *= 2

    assert life.double()


def test_a_counter_that_two_messages_have_is_double(life: Life) -> None:
    """Invariant D5."""
    life.received["bob"].append(life.received["bob"][0]._replace(message_id="2"))

    assert life.double()


def test_a_message_that_one_session_was_given_twice_is_double(life: Life) -> None:
    """Its agent reads it twice."""
    life.seen.surface(Surfaced(1, "bob", "1", "alice", "hello"))

    assert life.double()


def test_a_message_that_is_surfaced_after_it_was_marked_is_double(life: Life) -> None:
    """Also to another session."""
    life.seen.confirmed("bob", ["1"])
    life.seen.surface(Surfaced(2, "bob", "1", "alice", "hello"))

    assert life.double()


def test_a_stage_that_no_timeline_knows_is_false(life: Life) -> None:
    """Somebody was told it."""
    life.told("read", "peer", SENT_AT + 40)

    assert life.false()


@pytest.mark.parametrize("stage", ["accepted", "delivered"])
def test_a_stage_that_was_told_before_it_happened_is_false(life: Life, stage: str) -> None:
    """By the clock of its witness."""
    life.told(stage, "broker" if stage == "accepted" else "peer", SENT_AT + 5)

    assert life.false()


def test_an_acceptance_that_the_audit_log_does_not_hold_is_false(life: Life) -> None:
    """The broker signed for a row of its log that is another one."""
    life.audit.hashes[0] = "bb"

    assert life.false()


def test_a_delivery_that_its_recipient_does_not_know_is_false(life: Life) -> None:
    """There is no such row in its inbox."""
    life.received["bob"].clear()

    assert life.false()


def test_a_message_that_is_read_and_that_no_agent_confirmed_is_false(life: Life) -> None:
    """Evidence that nobody has."""
    life.steps.append(Step("1", BOB, "read", "peer", SENT_AT + 30, None))

    assert life.false()


def test_a_message_that_goes_back_is_false(life: Life) -> None:
    """Invariant D4: what is shown never goes backwards, and no step disappears."""
    every = [("queued", "sender"), ("accepted", "broker"), ("delivered", "peer")]
    life.letter.reports.clear()
    life.seen.told(life.letter, every, "delivered")
    life.seen.told(life.letter, every[:2], "accepted")

    assert len(life.seen.wrong) == 2


def test_a_message_that_was_refused_and_exists_is_false(life: Life) -> None:
    """Its daemon said that nothing took effect."""
    life.letter.answered, life.letter.refused = False, True

    assert life.false()


@pytest.mark.parametrize(("shown", "is_false"), [(600_020, False), (20, False), (600_000 + 60_000, True)])
def test_a_stage_is_dated_by_what_its_witnesss_clock_showed(life: Life, shown: int, is_false: bool) -> None:
    """A clock that was ten minutes ahead excuses a date ten minutes ahead, while it was, and no other."""
    life.clocks["bob"] = WrongClock(600_000, SENT_AT, SENT_AT + 1_000)
    life.steps[1] = life.steps[1]._replace(at=SENT_AT + shown)
    life.received["bob"][0] = life.received["bob"][0]._replace(received_at=SENT_AT + shown)

    assert bool(life.false()) == is_false


@pytest.mark.parametrize("found", ["lost", "double", "false"])
def test_a_world_with_one_flaw_fails(found: str) -> None:
    """And the line at the end counts it."""
    recorded: dict[str, Any] = {}
    tally = tally_of(**{found: ["it"]})

    tally.record(recorded.__setitem__)

    with pytest.raises(AssertionError, match="seed"):
        tally.require_flawless(3)
    assert f"1 {found}" in summarise(recorded.values())[0]


def test_a_world_in_which_too_little_went_wrong_fails() -> None:
    """Else a run that did nothing would be the best one."""
    with pytest.raises(AssertionError):
        tally_of().require_flawless(4)


def test_the_line_sums_up_all_worlds() -> None:
    """One figure over everything, and each kind counted once."""
    recorded: list[dict[str, Any]] = []
    for _ in range(2):
        tally_of().record(lambda _, world: recorded.append(cast("dict[str, Any]", world)))

    line, kinds = summarise(recorded)

    assert line.startswith("faults: 6 faults of 2 kinds, 14 messages, 0 lost, 0 double, 0 false (seed ")
    assert kinds == "faults by kind: cut 2, kill 4"
    assert summarise([]) == []
