"""Grants and blocks between real peers: what is refused, how its sender learns of it, and what a decision covers."""

import asyncio
from pathlib import Path

import pytest

import claudemesh
from claudemesh import Peer, Stage
from claudemesh.errors import UsageError
from claudemesh.peer import Submitted
from claudemesh.peer.views import PeerView
from claudemesh.protocol.delivery import Witness
from tests.brokers import serving
from tests.faults.peers import enrol, knows, next_message, opened


async def ended(sender: Peer, sent: Submitted, recipient: Peer) -> tuple[str, str, str]:
    """Wait until the recipient has stated what became of a message: stage, who says so, and why."""
    status = await sender.wait_for(sent.id, Stage.DELIVERED, timeout_s=30)
    (row,) = [one for one in status.recipients if one.peer == recipient.id]
    last = row.steps[-1]
    return last.stage, last.witness, last.detail


def sessions_of(views: list[PeerView]) -> set[str]:
    """Every session that is known."""
    return {session.id for view in views for session in view.sessions}


async def test_a_blocked_user_is_refused_on_every_device_also_a_later_one(tmp_path: Path) -> None:
    """The block is of the user; lifting it for one device leaves the others blocked."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            link, _ = await alice.invite(device=True)
        async with opened(homes.bob) as bob:
            await bob.block("alice")
        await claudemesh.join(link, name="alice", device="phone", config_dir=tmp_path / "phone")

        async with opened(homes.bob) as bob, opened(tmp_path / "phone") as phone, opened(homes.alice) as alice:
            await knows(phone, "bob.box")
            await knows(bob, "alice.phone")
            assert await ended(phone, await phone.send("bob", "a new device"), bob) == ("refused", "peer", "blocked")

            await bob.unblock("alice.phone")

            assert (await ended(phone, await phone.send("bob", "again"), bob))[0] == "delivered"
            assert await ended(alice, await alice.send("bob", "and I?"), bob) == ("refused", "peer", "blocked")
            assert [message.text for message in await bob.inbox()] == ["again"]
            await bob.unblock("alice")
            assert (await ended(alice, await alice.send("bob", "heard"), bob))[0] == "delivered"
            assert [view.rules for view in bob.grants()] == [(), ()]


async def test_a_permission_for_one_session_holds_there_alone(tmp_path: Path) -> None:
    """Interrupting the payments session is not interrupting the others, nor the peer as such."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            payments, docs = await bob.open_session("payments"), await bob.open_session("docs")
            await bob.grant("alice", "now", session="payments")
            await alice.wait_connected()
            async with asyncio.timeout(30):
                while not {payments.id, docs.id} <= sessions_of(await alice.peers()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

            for to in ("bob.box/payments", "bob.box/docs", "bob.box"):
                await ended(alice, await alice.send(to, to, priority="now"), bob)

            urgent = {message.text: message.priority for message in await bob.inbox()}
            assert urgent == {"bob.box/payments": "now", "bob.box/docs": "next", "bob.box": "next"}


async def test_posts_and_questions_need_their_own_permissions(tmp_path: Path) -> None:
    """Whoever may write may still not ask, and whoever is silenced in channels may still write."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            await bob.grant("alice", "channel", "ask", allowed=False)

            post = await alice.send("#general", "to everybody")
            question = await alice.send("bob", "are you there?", intent="request")
            message = await alice.send("bob", "just so that you know")

            assert await ended(alice, question, bob) == ("refused", "peer", "not_granted")
            assert (await ended(alice, message, bob))[0] == "delivered"
            assert await ended(alice, post, bob) == ("refused", "peer", "not_granted")
            assert [one.text for one in await bob.inbox()] == ["just so that you know"]
            assert {(row.code, row.envelopes) for row in await bob.quarantine()} == {("not_granted", 2)}


async def test_a_decision_outlives_the_process(tmp_path: Path) -> None:
    """It is in the journal before it holds."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            await bob.block("alice")
            before = bob.grants("alice")

        async with opened(homes.bob) as bob:
            assert bob.grants("alice") == before
            assert before[0].grants.is_blocked


async def test_own_devices_may_interrupt_without_being_granted_it(tmp_path: Path) -> None:
    """They are the same user."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            link, _ = await alice.invite(device=True)
        await claudemesh.join(link, name="alice", device="phone", config_dir=tmp_path / "phone")
        async with opened(homes.alice) as alice, opened(tmp_path / "phone") as phone:
            await knows(phone, "alice.box")
            sent = await phone.send("alice.box", "come here", priority="now")

            assert (await next_message(alice)).priority == "now"
            assert await ended(phone, sent, alice) == ("delivered", Witness.PEER, "")


async def test_what_cannot_be_decided_is_refused_in_words(tmp_path: Path) -> None:
    """Nothing is stored."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            with pytest.raises(UsageError, match="a permission is one of dm, ask"):
                await bob.grant("alice", "everything")  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="a permission is one of dm, ask"):
                await bob.grant("alice")
            with pytest.raises(UsageError, match="does not block itself"):
                await bob.block("bob.box")
            assert [view.rules for view in bob.grants()] == [()]
