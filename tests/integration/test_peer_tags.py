"""Messages to a tag: the sender resolves it from signed profiles, and says whom it reached."""

import asyncio
from pathlib import Path

import pytest

from claudemesh.errors import AddressError, UsageError
from claudemesh.peer import Peer
from claudemesh.peer.peer_session import PeerSession
from tests.teams import eventually, team


async def knows_tags(peer: Peer, count: int) -> None:
    """Wait until a peer has been told of so many tagged sessions."""
    known = peer._parts.names.known_peers
    await eventually(lambda: sum(bool(one.tags) for each in known() for one in each.sessions) >= count, "tags")


async def inbox_of(session: PeerSession, count: int) -> list[str]:
    """What a session has to read, once it is so much."""
    texts: list[str] = []

    async def read() -> bool:
        texts[:] = [one.text for one in await session.inbox()]
        return len(texts) >= count

    for _ in range(500):
        if await read():
            return texts
        await asyncio.sleep(0.02)
    raise AssertionError(f"only {texts}")


async def test_any_prefers_idle_sessions_then_busy_ones_then_those_that_are_away(tmp_path: Path) -> None:
    """By the status that the broker reports, among sessions whose own peers say that they carry the tag."""
    async with team(tmp_path, "alice", "bob", "carol") as (made, (alice, bob, carol)):
        busy = await bob.open_session("billing-a", tags=["repo=billing"])
        idle = await carol.open_session("billing-b", tags=["repo=billing", "lang=go"])
        await busy.set_status("busy")
        await knows_tags(alice, 2)
        first = await alice.send("tag:repo=billing", "who is free?")
        await inbox_of(idle, 1)
        await idle.close()
        await eventually(lambda: "lang=go" not in tags_known(alice), "the closed session")
        second = await alice.send("tag:repo=billing", "and now?")
        await inbox_of(busy, 1)
        await made.close("bob")
        alice._parts.presence.forget()
        third = await alice.send("tag:repo=billing", "when you are back")

        assert [(one.address, one.status) for one in first.reached] == [("carol.box/billing-b", "idle")]
        assert [(one.address, one.status) for one in second.reached] == [("bob.box/billing-a", "busy")]
        assert [(one.address, one.status) for one in third.reached] == [("bob.box/billing-a", "")]


def tags_known(peer: Peer) -> set[str]:
    return {tag for one in peer._parts.names.known_peers() for session in one.sessions for tag in session.tags}


async def test_all_reaches_every_session_that_carries_the_tag(tmp_path: Path) -> None:
    """Two sessions of one peer as well: each gets a copy of its own."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, carol)):
        sessions = [
            await bob.open_session("one", tags=["team=core"]),
            await bob.open_session("two", tags=["team=core"]),
            await carol.open_session("three", tags=["team=core"]),
            await carol.open_session("four", tags=["team=web"]),
        ]
        await knows_tags(alice, 4)
        sent = await alice.send("tag:team=core", "meeting", reach="all")
        texts = [await inbox_of(session, 1) for session in sessions[:3]]

        assert texts == [["meeting"]] * 3
        assert {one.address for one in sent.reached} == {"bob.box/one", "bob.box/two", "carol.box/three"}
        assert len({(one.peer, one.id) for one in sent.reached}) == 3
        assert await sessions[3].inbox() == []


async def test_a_tag_that_nobody_carries_names_those_that_somebody_does(tmp_path: Path) -> None:
    """An error, not silence."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await bob.open_session("one", tags=["team=core"])
        await knows_tags(alice, 1)
        with pytest.raises(AddressError) as error:
            await alice.send("tag:team=cor", "anybody?")
        with pytest.raises(UsageError):
            await bob.open_session("two", tags=["no value"])

        assert error.value.code == "unknown_address"
        assert "team=core" in error.value.detail
