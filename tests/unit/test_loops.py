"""What is held, and what is not: every reason of docs/spec/holding.md §2, at its limit and one past it."""

from claudemesh.protocol import loops
from claudemesh.protocol.chains import Chain
from claudemesh.protocol.loops import EVERYBODY, WINDOW_MS, Arrival, Budgets, Hold, Traffic
from claudemesh.types import Intent, MessageId, PeerId, SessionId, UnixMillis

NOW = UnixMillis(1_700_000_000_000)
ME, ALICE, BOB = PeerId("00" * 32), PeerId("aa" * 32), PeerId("bb" * 32)
API, WEB = SessionId("11" * 32), SessionId("22" * 32)
ROOT = MessageId("ee" * 16)


def arrival(
    number: int = 0,
    hop: int = 0,
    *,
    text: str = "",
    sender: PeerId = ALICE,
    session: SessionId | None = API,
    root: MessageId = ROOT,
    intent: Intent | None = None,
) -> Arrival:
    """A message of an agent; each number has a text of its own unless one is given."""
    digest = (text or str(number)).encode()
    return Arrival(MessageId(f"{number:032x}"), sender, session, Chain(root, hop), intent, digest)


def judged(traffic: Traffic, one: Arrival, now: int = NOW, budgets: Budgets | None = None) -> Hold | None:
    """What is decided about a message."""
    return loops.judge(traffic, one, ME, budgets or Budgets(), UnixMillis(now))


def with_taken(*taken: Arrival, at: int = NOW) -> Traffic:
    """What is remembered after these were taken."""
    traffic = Traffic()
    for one in taken:
        loops.take(traffic, one, UnixMillis(at))
    return traffic


def with_sent(root: MessageId, *peers: PeerId) -> Traffic:
    """What is remembered after this peer wrote in a conversation."""
    traffic = Traffic()
    for peer in peers:
        loops.send(traffic, root, peer, None, NOW, by_agent=False)
    return traffic


def test_the_first_message_of_an_agent_is_taken() -> None:
    """Nothing is held without a reason."""
    assert judged(Traffic(), arrival()) is None


def test_past_eight_hops_a_message_is_held() -> None:
    """The eighth answer is the last one that needs nobody."""
    assert judged(Traffic(), arrival(hop=8)) is None
    assert judged(Traffic(), arrival(hop=9)) == Hold("hops", 9, 8)
    assert judged(Traffic(), arrival(hop=9), budgets=Budgets(hops=9)) is None


def test_a_conversation_that_comes_back_by_another_way_is_held() -> None:
    """It went out to Bob; Alice was never written to in it."""
    assert judged(with_sent(ROOT, BOB), arrival(hop=2, sender=ALICE)) == Hold("revisit", 2, 1)


def test_whoever_was_written_to_may_answer_also_without_naming_what() -> None:
    """The way back is the way out; the same after a post in a channel, which everybody reads."""
    assert judged(with_sent(ROOT, ALICE), arrival(hop=2, sender=ALICE)) is None
    assert judged(with_sent(ROOT, EVERYBODY), arrival(hop=2, sender=ALICE)) is None


def test_a_conversation_of_others_or_among_own_sessions_is_no_revisit() -> None:
    """Only what went out from here can come back; and one machine's sessions are bounded by hops."""
    assert judged(Traffic(), arrival(hop=3)) is None
    assert judged(with_sent(ROOT, BOB), arrival(hop=2, sender=ME)) is None
    assert judged(with_sent(ROOT, BOB), arrival(hop=1, sender=ALICE)) is None


def test_the_same_text_in_the_same_conversation_is_held() -> None:
    """The third "thank you" of a loop says nothing new."""
    traffic = with_taken(arrival(1, hop=1, text="thank you"))

    assert judged(traffic, arrival(2, hop=3, text="thank you")) == Hold("repeat", 2, 1)
    assert judged(traffic, arrival(2, hop=3, text="thank you"), NOW + WINDOW_MS) is None
    assert judged(traffic, arrival(2, hop=3, text="thanks")) is None


def test_the_same_text_elsewhere_is_another_message() -> None:
    """Another conversation, another session, another sender: "done" answers many questions."""
    traffic = with_taken(arrival(1, hop=1, text="done"))

    assert judged(traffic, arrival(2, hop=1, text="done", root=MessageId("dd" * 16))) is None
    assert judged(traffic, arrival(2, hop=1, text="done", session=WEB)) is None
    assert judged(traffic, arrival(2, hop=1, text="done", sender=BOB)) is None


def test_beginnings_are_one_conversation_for_repetitions() -> None:
    """An agent that forgets each time what it answers begins anew each time."""
    traffic = with_taken(arrival(1, hop=0, text="go on", root=MessageId("01" * 16)))

    assert judged(traffic, arrival(2, hop=0, text="go on", root=MessageId("02" * 16))) == Hold("repeat", 2, 1)


def test_a_copy_and_an_acknowledgement_are_no_repetitions() -> None:
    """The same id again is the same message, and an ack wakes nobody."""
    traffic = with_taken(arrival(1, text="ok"))

    assert judged(traffic, arrival(1, text="ok")) is None
    assert judged(traffic, arrival(2, text="ok", intent="ack")) is None


def test_past_twenty_messages_of_a_pair_in_ten_minutes_a_message_is_held() -> None:
    """Both ways count; after the window it begins anew."""
    traffic = with_taken(*(arrival(number) for number in range(12)))
    for _ in range(7):
        loops.send(traffic, ROOT, ALICE, API, NOW, by_agent=True)

    assert judged(traffic, arrival(98)) is None

    loops.send(traffic, ROOT, ALICE, API, NOW, by_agent=True)
    assert judged(traffic, arrival(99)) == Hold("pair", 21, 20)
    assert judged(traffic, arrival(99, session=WEB)) is None
    assert judged(traffic, arrival(99, sender=BOB)) is None
    assert judged(traffic, arrival(99), budgets=Budgets(pair=21)) is None
    assert judged(traffic, arrival(99), NOW + WINDOW_MS) is None


def test_what_a_person_sends_is_not_counted() -> None:
    """Only agents use up what agents may."""
    traffic = Traffic()
    for _ in range(500):
        loops.send(traffic, ROOT, ALICE, API, NOW, by_agent=False)

    assert judged(traffic, arrival()) is None
    assert loops.may_send(traffic, API, Budgets(), NOW)


def test_a_session_takes_only_so_many_of_all_senders_together() -> None:
    """Five peers that stay within their own budgets are together too many."""
    senders = [PeerId(f"{number:064x}") for number in range(1, 11)]
    traffic = with_taken(*(arrival(10 * at + n, sender=one) for at, one in enumerate(senders) for n in range(10)))

    assert judged(traffic, arrival(998, sender=BOB)) == Hold("session", 101, 100)
    assert judged(traffic, arrival(999, sender=BOB, session=WEB)) is None


def test_a_session_sends_only_so_much() -> None:
    """The hundredth message leaves, the next one does not; another session has its own count."""
    traffic = Traffic()
    for _ in range(99):
        loops.send(traffic, ROOT, ALICE, API, NOW, by_agent=True)

    assert loops.may_send(traffic, API, Budgets(), NOW)

    loops.send(traffic, ROOT, ALICE, API, NOW, by_agent=True)
    assert not loops.may_send(traffic, API, Budgets(), NOW)
    assert loops.may_send(traffic, WEB, Budgets(), NOW)
    assert loops.may_send(traffic, API, Budgets(), UnixMillis(NOW + WINDOW_MS))


def test_what_could_not_be_recorded_is_as_if_it_never_came() -> None:
    """It arrives again, and must not be taken for a repetition of itself or use up a budget."""
    one, traffic = arrival(1, text="once"), Traffic()
    loops.take(traffic, one, NOW)

    loops.untake(traffic, one, NOW)

    assert judged(traffic, arrival(2, text="once")) is None
    assert judged(traffic, one, budgets=Budgets(pair=1, session=1)) is None


def test_memory_is_bounded() -> None:
    """The oldest conversations and texts are forgotten first; what is outside the window is forgotten in time."""
    traffic = Traffic()
    for number in range(loops.MAX_TEXTS + 10):
        loops.take(traffic, arrival(number), NOW)
    for number in range(loops.MAX_CONVERSATIONS + 10):
        loops.send(traffic, MessageId(f"{number:032x}"), ALICE, API, NOW, by_agent=True)

    assert len(traffic.texts) == loops.MAX_TEXTS
    assert len(traffic.conversations) == loops.MAX_CONVERSATIONS

    loops.prune(traffic, UnixMillis(NOW + WINDOW_MS))
    assert (traffic.texts, traffic.exchanged, traffic.taken, traffic.sent) == ({}, {}, {}, {})
