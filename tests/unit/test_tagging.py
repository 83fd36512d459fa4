"""Whom a tag reaches, by what peers say of their sessions and the broker of who is connected."""

import pytest

from claudemesh.errors import AddressError
from claudemesh.peer import tagging
from claudemesh.peer.addressing import KnownPeer, KnownSession
from claudemesh.types import MessageId, PeerId, SessionId, UserId

TAG = "repo=billing"


def session(number: int, *tags: str) -> KnownSession:
    return KnownSession(SessionId(f"{number:064x}"), f"s{number}", tags)


def peer(number: int, *sessions: KnownSession) -> KnownPeer:
    return KnownPeer(PeerId(f"{number:064x}"), UserId("ff" * 32), sessions=sessions)


PEERS = [
    peer(1, session(1, TAG), session(2, TAG, "lang=go"), session(3)),
    peer(2, session(4, TAG), session(5, TAG)),
    peer(3, session(6, "repo=bill")),
]


def test_the_readiest_come_first() -> None:
    """Idle before busy, busy before away, connected before not; no session without exactly this tag."""
    statuses = {session(1).id: "busy", session(4).id: "idle", session(5).id: "away", session(6).id: "idle"}

    found = tagging.find_tagged("tag:repo=billing", PEERS, statuses, None)

    assert [one.label for one in found] == ["s4", "s1", "s5", "s2"]


@pytest.mark.parametrize(("spread", "label"), [(0.0, "s1"), (0.49, "s1"), (0.5, "s4"), (1.0, "s4")])
def test_equally_ready_sessions_share_the_work(spread: float, label: str) -> None:
    """Chance decides among them, and among them only."""
    statuses = {session(1).id: "idle", session(4).id: "idle", session(5).id: "busy"}
    found = tagging.find_tagged("tag:repo=billing", PEERS, statuses, None)

    assert tagging.choose_one(found, spread).label == label


def test_a_session_does_not_reach_itself() -> None:
    """Asking others for help by one's own tag is the usual case."""
    found = tagging.find_tagged("tag:lang=go", [*PEERS, peer(4, session(7, "lang=go"))], {}, session(2).id)

    assert [one.label for one in found] == ["s7"]


def test_each_session_of_a_peer_gets_a_copy_that_is_not_taken_for_another() -> None:
    """The first copy has the message's id; a further one for the same peer has one of its own, always the same."""
    found = tagging.find_tagged("tag:repo=billing", PEERS, {}, None)
    message = MessageId("ab" * 16)

    ids = [tagging.id_for(message, found, index) for index in range(len(found))]

    assert ids[0] == ids[2] == message
    assert len(set(ids)) == 3
    assert ids == [tagging.id_for(message, found, index) for index in range(len(found))]


def test_a_tag_that_nobody_carries_is_an_error_that_names_some() -> None:
    """Silence would look like delivery."""
    with pytest.raises(AddressError, match="lang=go"):
        tagging.find_tagged("tag:lang=rust", PEERS, {}, None)
