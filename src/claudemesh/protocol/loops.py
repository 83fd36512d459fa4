"""When a recipient holds what an agent sent: too far from its beginning, a revisit, a repetition, or too much.

Source: docs/spec/holding.md §2. `Traffic` is what one peer remembers of the last minutes; `judge` decides by it, and
changes nothing. What is taken is added by `take`, what is sent by `send`. Messages that state no chain are a person's,
and never held here.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeVar

from claudemesh.protocol.chains import Chain
from claudemesh.protocol.limits import MINUTE_MS
from claudemesh.types import Intent, MessageId, PeerId, SessionId, UnixMillis

K = TypeVar("K")
Reason = Literal["hops", "revisit", "repeat", "pair", "session"]
Budget = Literal["hops", "pair", "session", "sends"]

WINDOW_MS: Final = 10 * MINUTE_MS
MAX_CONVERSATIONS: Final = 4_096
"""Conversations in which this peer remembers to whom it wrote; the oldest is forgotten first."""
MAX_TEXTS: Final = 16_384
EVERYBODY: Final = PeerId("")
"""In place of a peer: the message was posted in a channel."""


class Budgets(NamedTuple):
    """How much an agent may cause before a person is asked; the defaults hold until somebody decides otherwise."""

    hops: int = 8
    """Answers between the first message of a conversation and one that is taken."""
    pair: int = 20
    """Messages of agents in `WINDOW_MS` between a peer and a session of ours, both ways."""
    session: int = 100
    """Messages of agents in `WINDOW_MS` that one session of ours takes, of all peers together."""
    sends: int = 100
    """Messages in `WINDOW_MS` that one session of ours sends."""


class Arrival(NamedTuple):
    """An authentic message of an agent."""

    id: MessageId
    sender: PeerId
    session: SessionId | None
    """The session of ours that it is for; None: the peer as such, or a channel."""
    chain: Chain
    intent: Intent | None
    digest: bytes
    """Of its text and place: equal for equal texts in one place only."""


class Hold(NamedTuple):
    """Why a message waits for a person, with the figures that led to it."""

    reason: Reason
    reached: int
    """How many there are with this one: answers, or messages in the window."""
    allowed: int
    """How many are taken."""


@dataclass(slots=True)
class Traffic:
    """What one peer remembers of agents' messages."""

    exchanged: dict[tuple[PeerId, SessionId | None], deque[UnixMillis]] = field(default_factory=dict)
    taken: dict[SessionId | None, deque[UnixMillis]] = field(default_factory=dict)
    sent: dict[SessionId | None, deque[UnixMillis]] = field(default_factory=dict)
    texts: OrderedDict[tuple[PeerId, SessionId | None, MessageId | None, bytes], tuple[UnixMillis, MessageId]] = field(
        default_factory=OrderedDict
    )
    """When a text was taken, and with which id."""
    conversations: OrderedDict[MessageId, set[PeerId]] = field(default_factory=OrderedDict)
    """To whom this peer wrote in a conversation."""


def judge(traffic: Traffic, arrival: Arrival, own: PeerId, budgets: Budgets, now: UnixMillis) -> Hold | None:
    """Whether an agent's message waits for a person; None when it is taken.

    Args:
        own: This peer: a conversation among its own sessions revisits nothing.
        budgets: Those that hold for this sender and session.
    """
    chain = arrival.chain
    if chain.hop > budgets.hops:
        return Hold("hops", chain.hop, budgets.hops)
    if _is_revisit(traffic, arrival, own):
        return Hold("revisit", chain.hop, 1)
    if arrival.intent != "ack" and _is_repeat(traffic, arrival, now):
        return Hold("repeat", 2, 1)
    exchanged = _count(traffic.exchanged.get((arrival.sender, arrival.session)), now)
    if exchanged >= budgets.pair:
        return Hold("pair", exchanged + 1, budgets.pair)
    taken = _count(traffic.taken.get(arrival.session), now)
    if taken >= budgets.session:
        return Hold("session", taken + 1, budgets.session)
    return None


def take(traffic: Traffic, arrival: Arrival, now: UnixMillis) -> None:
    """Remember an agent's message that is taken."""
    _add(traffic.exchanged, (arrival.sender, arrival.session), now)
    _add(traffic.taken, arrival.session, now)
    traffic.texts[_text_key(arrival)] = (now, arrival.id)
    while len(traffic.texts) > MAX_TEXTS:
        traffic.texts.popitem(last=False)


def untake(traffic: Traffic, arrival: Arrival, at: UnixMillis) -> None:
    """Forget one that was remembered at `at` and could not be recorded: it will arrive again."""
    for times in (traffic.exchanged.get((arrival.sender, arrival.session)), traffic.taken.get(arrival.session)):
        if times is not None and at in times:
            times.remove(at)
    if traffic.texts.get(_text_key(arrival)) == (at, arrival.id):
        del traffic.texts[_text_key(arrival)]


def may_send(traffic: Traffic, session: SessionId | None, budgets: Budgets, now: UnixMillis) -> bool:
    """Whether a session of ours has not used up what it may send."""
    return _count(traffic.sent.get(session), now) < budgets.sends


def send(
    traffic: Traffic, root: MessageId, to: PeerId, session: SessionId | None, now: UnixMillis, *, by_agent: bool
) -> None:
    """Remember a message of ours to one peer, or to `EVERYBODY` in a channel."""
    known = traffic.conversations.setdefault(root, set())
    known.add(to)
    traffic.conversations.move_to_end(root)
    while len(traffic.conversations) > MAX_CONVERSATIONS:
        traffic.conversations.popitem(last=False)
    if by_agent:
        _add(traffic.exchanged, (to, session), now)
        _add(traffic.sent, session, now)


def prune(traffic: Traffic, now: UnixMillis) -> None:
    """Forget what lies outside the window."""
    _prune(traffic.exchanged, now)
    _prune(traffic.taken, now)
    _prune(traffic.sent, now)
    for key in [key for key, (at, _) in traffic.texts.items() if at <= now - WINDOW_MS]:
        del traffic.texts[key]


def _is_revisit(traffic: Traffic, arrival: Arrival, own: PeerId) -> bool:
    """Whether a conversation that went out from here comes back from somebody whom it was not sent to."""
    addressed = traffic.conversations.get(arrival.chain.root)
    if addressed is None or arrival.chain.hop < 2 or arrival.sender == own:
        return False
    return arrival.sender not in addressed and EVERYBODY not in addressed


def _is_repeat(traffic: Traffic, arrival: Arrival, now: UnixMillis) -> bool:
    before = traffic.texts.get(_text_key(arrival))
    return before is not None and before[0] > now - WINDOW_MS and before[1] != arrival.id


def _text_key(arrival: Arrival) -> tuple[PeerId, SessionId | None, MessageId | None, bytes]:
    """One text in one conversation; beginnings are all one conversation, or a loop would look new each time."""
    root = arrival.chain.root if arrival.chain.hop else None
    return (arrival.sender, arrival.session, root, arrival.digest)


def _add(counted: dict[K, deque[UnixMillis]], key: K, now: UnixMillis) -> None:
    counted.setdefault(key, deque()).append(now)


def _count(times: deque[UnixMillis] | None, now: UnixMillis) -> int:
    """How many lie in the window; older ones are dropped."""
    if times is None:
        return 0
    while times and times[0] <= now - WINDOW_MS:
        times.popleft()
    return len(times)


def _prune(counted: dict[K, deque[UnixMillis]], now: UnixMillis) -> None:
    for key in [key for key, times in counted.items() if not _count(times, now)]:
        del counted[key]
