"""Joins and leaves as a function of time."""

from claudemesh.broker.presence import Connected, Presence
from claudemesh.broker.store.base import LinkId
from claudemesh.crypto.statements import Statement
from claudemesh.types import MeshId, PeerId, SessionId, UnixMillis

GRACE_MS = 90_000
MESH, PEER, SESSION = MeshId("m"), PeerId("p"), SessionId("s")
ONE, TWO = LinkId(1), LinkId(2)


def at(ms: int) -> UnixMillis:
    return UnixMillis(ms)


def announced(presence: Presence, link: LinkId, session: SessionId = SESSION) -> None:
    presence.announce(MESH, PEER, session, Connected(link, Statement("", "", ""), "idle", "", at(0)))


def test_first_link_joins_and_a_second_does_not() -> None:
    presence = Presence(GRACE_MS)

    assert [presence.link_opened(MESH, PEER, at(0)), presence.link_opened(MESH, PEER, at(1))] == [True, False]


def test_peer_leaves_once_when_the_grace_has_passed() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    presence.link_closed(MESH, PEER, ONE, at(0), at(10))

    reports = [presence.left(at(10 + GRACE_MS - 1)), presence.left(at(10 + GRACE_MS)), presence.left(at(10**9))]

    assert reports == [[], [(MESH, PEER)], []]


def test_return_within_the_grace_is_no_join_and_no_leave() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    presence.link_closed(MESH, PEER, ONE, at(0), at(10))

    joined = presence.link_opened(MESH, PEER, at(GRACE_MS))

    assert not joined
    assert presence.left(at(10**9)) == []


def test_return_after_the_grace_is_a_join() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    presence.link_closed(MESH, PEER, ONE, at(0), at(10))
    presence.left(at(10**6))

    assert presence.link_opened(MESH, PEER, at(10**6 + 1))


def test_silence_for_a_lease_is_a_leave_without_a_grace() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    presence.link_closed(MESH, PEER, ONE, at(0), at(10))

    assert presence.link_silent(MESH, PEER)
    assert not presence.link_silent(MESH, PEER)
    assert presence.left(at(10**9)) == []


def test_silence_of_one_link_is_no_leave_while_another_is_open() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    presence.link_opened(MESH, PEER, at(1))
    presence.link_closed(MESH, PEER, ONE, at(0), at(10))

    assert not presence.link_silent(MESH, PEER)


def test_peer_restored_after_a_restart_does_not_join_but_may_leave() -> None:
    returning, lost = Presence(GRACE_MS), Presence(GRACE_MS)
    for presence in (returning, lost):
        presence.restore(MESH, PEER, at(0), at(10))

    assert not returning.link_opened(MESH, PEER, at(20))
    assert lost.left(at(10 + GRACE_MS)) == [(MESH, PEER)]


def test_sessions_go_with_the_link_that_announced_them() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    presence.link_opened(MESH, PEER, at(0))
    announced(presence, ONE)
    announced(presence, TWO, SessionId("t"))
    presence.link_closed(MESH, PEER, ONE, at(0), at(10))

    [listed] = presence.listing(MESH, {})

    assert [session.sess for session in listed.sessions] == ["t"]


def test_link_changes_only_its_own_sessions() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))
    announced(presence, ONE)

    assert not presence.set_status(MESH, PEER, SESSION, TWO, "busy")
    assert not presence.end(MESH, PEER, SESSION, TWO)
    assert presence.set_status(MESH, PEER, SESSION, ONE, "busy")
    assert presence.end(MESH, PEER, SESSION, ONE)


def test_revoked_peer_is_gone_although_its_link_still_closes() -> None:
    presence = Presence(GRACE_MS)
    presence.link_opened(MESH, PEER, at(0))

    removed = presence.removed(MESH, PEER)
    presence.link_closed(MESH, PEER, ONE, at(0), at(1))

    assert removed
    assert presence.left(at(10**9)) == []
    assert presence.listing(MESH, {}) == []


def test_peer_that_only_the_store_remembers_is_listed_without_sessions() -> None:
    presence = Presence(GRACE_MS)

    [listed] = presence.listing(MESH, {PEER: at(7)})

    assert (listed.seen, listed.sessions) == (7, [])
