"""Whatever two agents write to each other: the traffic ends, and what was refused by nothing is not held."""

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol import chains, loops
from claudemesh.protocol.chains import Cause, Chain
from claudemesh.protocol.loops import WINDOW_MS, Arrival, Budgets, Traffic
from claudemesh.types import MessageId, PeerId, UnixMillis

ALICE, BOB = PeerId("aa" * 32), PeerId("bb" * 32)
budgets = st.builds(
    Budgets, hops=st.integers(0, 12), pair=st.integers(1, 30), session=st.integers(1, 60), sends=st.integers(1, 60)
)


class Agent:
    """One that answers whatever it is shown, at once and forever."""

    def __init__(self, key: PeerId, allowed: Budgets) -> None:
        self.key = key
        self.allowed = allowed
        self.traffic = Traffic()
        self.taken = 0

    def send(self, number: int, to: PeerId, chain: Chain, text: bytes, now: UnixMillis) -> Arrival:
        """Write one message."""
        loops.send(self.traffic, chain.root, to, None, now, by_agent=True)
        return Arrival(MessageId(f"{number:032x}"), self.key, None, chain, None, text)

    def takes(self, arrival: Arrival, now: UnixMillis) -> bool:
        """Be shown a message, unless it is held."""
        if loops.judge(self.traffic, arrival, self.key, self.allowed, now) is not None:
            return False
        loops.take(self.traffic, arrival, now)
        self.taken += 1
        return True


@given(alices=budgets, bobs=budgets, remembers=st.booleans(), texts=st.lists(st.binary(min_size=1), min_size=1))
def test_two_agents_that_answer_everything_are_stopped(
    alices: Budgets, bobs: Budgets, remembers: bool, texts: list[bytes]
) -> None:
    """Within one window at most as many are taken as the budgets say, with or without a chain that is passed on."""
    speaker, listener = Agent(ALICE, alices), Agent(BOB, bobs)
    chain, number = chains.begin(MessageId("00" * 16)), 0

    while True:
        now = UnixMillis(1_000_000 + number)
        one = speaker.send(number, listener.key, chain, texts[number % len(texts)] + bytes([number % 256]), now)
        if not listener.takes(one, now):
            break
        number += 1
        chain = chains.answer(Cause(one.id, one.chain)) if remembers else chains.begin(MessageId(f"{number:032x}"))
        speaker, listener = listener, speaker

    most = max(alices.pair, bobs.pair)
    assert number <= (min(most, max(alices.hops, bobs.hops) + 1) if remembers else most)


@given(
    gaps=st.lists(st.integers(0, WINDOW_MS), max_size=80),
    allowed=budgets,
    hops=st.lists(st.integers(0, 15), min_size=80, max_size=80),
)
def test_no_window_ever_holds_more_than_the_budget(gaps: list[int], allowed: Budgets, hops: list[int]) -> None:
    """However messages are spread in time, any ten minutes have at most `pair` and `session` of them, none too deep."""
    agent, now, taken = Agent(BOB, allowed), UnixMillis(1_000_000), list[int]()

    for number, (gap, hop) in enumerate(zip(gaps, hops, strict=False)):
        now = UnixMillis(now + gap)
        one = Arrival(MessageId(f"{number:032x}"), ALICE, None, Chain(MessageId("ee" * 16), hop), None, b"%d" % number)
        if agent.takes(one, now):
            assert hop <= allowed.hops
            taken.append(now)

    for start in taken:
        assert sum(start <= at < start + WINDOW_MS for at in taken) <= min(allowed.pair, allowed.session)
