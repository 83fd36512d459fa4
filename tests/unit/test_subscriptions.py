"""Who gets the posts of which channel; pure, from roster and wishes."""

import pytest

from claudemesh.broker.fan_out import MAILBOXES_PER_MESSAGE, message_cost
from claudemesh.broker.store.base import Subscription
from claudemesh.broker.subscriptions import Subscriptions, is_member
from claudemesh.errors import Refused
from claudemesh.protocol.roster import EVERYONE, GENERAL, SPACE
from claudemesh.types import ChannelId, PeerId
from tests.rosters import Log, channel, family, key

DEPLOYS, LOUNGE = ChannelId(channel("deploys")), ChannelId(channel("lounge"))


def peer(name: str) -> PeerId:
    return PeerId(key(name).public)


def sorted_peers(*names: str) -> tuple[PeerId, ...]:
    return tuple(sorted(map(peer, names)))


@pytest.fixture
def log() -> Log:
    """Alice, Adam, Bob and Carol; Alice and Bob in #deploys, an open channel that Carol made."""
    made = family()
    made.append("chan", "alice", chan=DEPLOYS, kind="private")
    made.append("chan_add", "alice", chan=DEPLOYS, who=peer("bob"))
    made.append("chan", "carol", chan=LOUNGE, kind="open")
    return made


def test_rule_is_everybody_in_what_was_there_first_and_in_what_one_was_added_to(log: Log) -> None:
    """Open channels that anybody may make reach nobody who did not ask: there is no ambient broadcast."""
    nobody_asked = Subscriptions()

    found = {one: nobody_asked.subscribers(log.roster, one) for one in (GENERAL, SPACE, DEPLOYS, EVERYONE, LOUNGE)}

    everybody = sorted_peers("alice", "adam", "bob", "carol")
    assert found[GENERAL] == found[SPACE] == everybody
    assert found[DEPLOYS] == sorted_peers("alice", "bob")
    assert found[EVERYONE] == found[LOUNGE] == ()


def test_wishes_are_those_of_members_only(log: Log) -> None:
    """A wish that outlived a membership has no effect."""
    kept = [Subscription(DEPLOYS, peer("carol"), True), Subscription(DEPLOYS, peer("bob"), False)]
    kept.append(Subscription(LOUNGE, peer("bob"), True))
    subscriptions = Subscriptions(kept)
    log.append("revoke", "alice", who=peer("bob"), why="left")

    assert subscriptions.subscribers(log.roster, DEPLOYS) == sorted_peers("alice")
    assert subscriptions.subscribers(log.roster, LOUNGE) == ()


def test_subscribers_follow_every_change_of_members_and_wishes(log: Log) -> None:
    """What is remembered between two posts never outlives what it was made from."""
    subscriptions = Subscriptions()
    seen = [subscriptions.subscribers(log.roster, DEPLOYS)]
    log.append("chan_add", "alice", chan=DEPLOYS, who=peer("carol"))
    seen.append(subscriptions.subscribers(log.roster, DEPLOYS))
    subscriptions.set(DEPLOYS, peer("alice"), False)
    seen.append(subscriptions.subscribers(log.roster, DEPLOYS))
    log.append("chan_del", "alice", chan=DEPLOYS, who=peer("bob"))
    seen.append(subscriptions.subscribers(log.roster, DEPLOYS))
    subscriptions.set(DEPLOYS, peer("alice"), None)
    seen.append(subscriptions.subscribers(log.roster, DEPLOYS))

    assert seen == [
        sorted_peers("alice", "bob"),
        sorted_peers("alice", "bob", "carol"),
        sorted_peers("bob", "carol"),
        sorted_peers("carol"),
        sorted_peers("alice", "carol"),
    ]


def test_subscribers_are_those_of_the_roster_that_is_asked_about(log: Log) -> None:
    """Two rosters of one length that differ, as after a restored backup, do not share an answer."""
    other = family()
    other.append("chan", "alice", chan=DEPLOYS, kind="private")
    other.append("chan_add", "alice", chan=DEPLOYS, who=peer("carol"))
    subscriptions = Subscriptions()

    first = subscriptions.subscribers(log.roster, DEPLOYS)
    second = subscriptions.subscribers(other.roster, DEPLOYS)

    assert (first, second) == (sorted_peers("alice", "bob"), sorted_peers("alice", "carol"))


def test_only_what_differs_from_the_rule_is_kept(log: Log) -> None:
    subscriptions = Subscriptions()

    decided = [
        subscriptions.decide(log.roster, one, peer("bob"), wanted, limit=10)
        for one, wanted in ((GENERAL, True), (GENERAL, False), (LOUNGE, False), (LOUNGE, True))
    ]

    assert decided == [None, False, None, True]


def test_limit_counts_wishes_of_one_peer_and_forgets_those_that_ended(log: Log) -> None:
    """Changing a wish, or going back to the rule, needs no room."""
    subscriptions = Subscriptions([Subscription(LOUNGE, peer("bob"), True)])

    with pytest.raises(Refused) as refused:
        subscriptions.decide(log.roster, GENERAL, peer("bob"), False, limit=1)
    of_carol = subscriptions.decide(log.roster, GENERAL, peer("carol"), False, limit=1)
    same_again = subscriptions.decide(log.roster, LOUNGE, peer("bob"), True, limit=1)
    subscriptions.forget(peer("bob"))
    after = subscriptions.decide(log.roster, GENERAL, peer("bob"), False, limit=1)

    assert refused.value.code == "limit"
    assert (of_carol, same_again, after) == (False, True, False)


def test_nobody_is_in_a_channel_that_does_not_exist(log: Log) -> None:
    found = [is_member(log.roster, one, peer("carol")) for one in (ChannelId("ff" * 16), DEPLOYS, LOUNGE)]

    assert found == [False, False, True]


def test_post_costs_more_the_more_mailboxes_it_fills_and_never_more_than_a_burst() -> None:
    """What costs more than the bucket holds could never be sent."""
    costs = [message_cost(recipients, burst=20) for recipients in (0, MAILBOXES_PER_MESSAGE - 1, 640, 10_000)]

    assert costs == [1, 1, 11, 20]
