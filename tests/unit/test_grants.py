"""What a sender may do here: every permission, every order of decisions, and what no decision touches."""

import itertools
from typing import Any

import pytest

from claudemesh.peer.grants import (
    BLOCK,
    DEFAULT,
    PERMISSIONS,
    Allow,
    Grants,
    Refuse,
    Rule,
    Sender,
    decide,
    grants_of,
    permission_for,
)
from claudemesh.types import PeerId, UserId

PEER, USER = PeerId("ab" * 32), UserId("cd" * 32)
STRANGER = Sender(PEER, USER, is_own=False)
OWN = Sender(PEER, USER, is_own=True)


def header(ct: str = "text/plain", k: str = "dm", prio: str = "next", **more: Any) -> dict[str, Any]:
    """The fields of a header that a policy looks at."""
    return {"ct": ct, "k": k, "prio": prio, **more}


HEADERS = {
    "dm": header(),
    "ask": header(intent="request"),
    "channel": header(k="ch"),
    "transcript": header("cm/transcript-query"),
}


@pytest.mark.parametrize("permission", HEADERS)
def test_each_kind_of_message_needs_its_own_permission(permission: str) -> None:
    """Taken with exactly that one, refused with all others."""
    others = frozenset(PERMISSIONS) - {permission}

    assert permission_for(HEADERS[permission]) == permission
    assert decide(Grants(frozenset({permission})), HEADERS[permission]) == Allow("next")
    assert decide(Grants(others), HEADERS[permission]) == Refuse("not_granted", permission)


@pytest.mark.parametrize("permission", HEADERS)
def test_a_blocked_sender_is_refused_whatever_it_was_granted(permission: str) -> None:
    """Blocking is one decision, not five."""
    everything = Grants(frozenset(PERMISSIONS), is_blocked=True)

    assert decide(everything, HEADERS[permission]) == Refuse("blocked")


@pytest.mark.parametrize("ct", ["cm/receipt", "cm/profile", "cm/nack", "cm/dir", "cm/slot"])
def test_the_protocols_own_messages_are_taken_from_everybody(ct: str) -> None:
    """Who is blocked still tells its name and confirms what it was sent; neither reaches an agent."""
    assert decide(Grants(frozenset(), is_blocked=True), header(ct, prio="low")) == Allow("low")


def test_a_message_that_may_not_interrupt_is_taken_like_any_other() -> None:
    """`now` is a wish; without the grant nothing is lost but the interruption."""
    urgent = header(prio="now")

    assert decide(Grants(DEFAULT), urgent) == Allow("next")
    assert decide(Grants(DEFAULT | {"now"}), urgent) == Allow("now")


def test_the_right_to_interrupt_is_not_the_right_to_write() -> None:
    """Each permission stands for itself."""
    assert decide(Grants(frozenset({"now"})), header(prio="now")) == Refuse("not_granted", "dm")


def test_peers_of_the_mesh_may_write_ask_and_post_and_no_more() -> None:
    """The default, which nobody has to decide."""
    assert grants_of([], STRANGER, "").permissions == {"dm", "ask", "channel"}


def test_own_devices_may_do_everything() -> None:
    """They are the same user."""
    assert grants_of([], OWN, "").permissions == set(PERMISSIONS)


def test_own_devices_can_be_restricted_like_any_other() -> None:
    """A lost phone is blocked before it is revoked."""
    assert grants_of([Rule(USER, "", BLOCK, True)], OWN, "").is_blocked


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_a_decision_about_another_peer_changes_nothing(permission: Any) -> None:
    """Nor one about another session of ours."""
    foreign = [Rule("ef" * 32, "", permission, permission not in DEFAULT), Rule(PEER, "payments", BLOCK, True)]

    assert grants_of(foreign, STRANGER, "docs") == Grants(DEFAULT)


@pytest.mark.parametrize("permission", [*PERMISSIONS, BLOCK])
def test_the_narrower_decision_holds_in_whatever_order_they_were_made(permission: Any) -> None:
    """A session of ours before all of them, then the peer before its user; every order, every outcome."""
    for outcomes in itertools.product([True, False], repeat=4):
        widest_first = [
            Rule(USER, "", permission, outcomes[0]),
            Rule(PEER, "", permission, outcomes[1]),
            Rule(USER, "payments", permission, outcomes[2]),
            Rule(PEER, "payments", permission, outcomes[3]),
        ]
        for count in range(1, 5):
            for rules in itertools.permutations(widest_first[:count]):
                grants = grants_of(rules, STRANGER, "payments")
                holds = grants.is_blocked if permission == BLOCK else permission in grants.permissions
                assert holds is outcomes[count - 1]


def test_the_peer_as_such_has_no_decisions_of_sessions() -> None:
    """What is granted at one session is granted there only."""
    assert "now" not in grants_of([Rule(PEER, "payments", "now", True)], STRANGER, "").permissions
