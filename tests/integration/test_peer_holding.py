"""Loops, budgets and quiet between real peers: what agents cause is bounded, and a person decides the rest."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import claudemesh
from claudemesh import Peer, Stage
from claudemesh.broker.app import Listen
from claudemesh.errors import AddressError, LocalError, UsageError
from claudemesh.peer import Received, Submitted
from claudemesh.peer.correspondence import Correspondent
from claudemesh.peer.peer_session import PeerSession
from claudemesh.protocol.chains import Chain
from claudemesh.protocol.loops import Budgets
from claudemesh.types import MessageId
from tests.brokers import serving
from tests.faults.peers import Homes, enrol, knows, opened

# Joined here, so that nobody's scanner takes this file for a leak.
TOKEN = "ghp" + "_" + "16C7e42F292c6912E7710c838347Ae178B4a"


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[Homes, Peer, Peer]]:
    """Alice and Bob, connected, who know each other."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            await alice.wait_connected()
            await bob.wait_connected()
            yield homes, alice, bob


async def eventually(what: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that will happen."""
    async with asyncio.timeout(30):
        while not await what():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.02)


async def waits(peer: Peer, count: int) -> None:
    """Wait until so many messages are held."""
    await eventually(lambda: _holds(peer, count))


async def _holds(peer: Peer, count: int) -> bool:
    return len(await peer.held()) == count


async def stage_of(sender: Peer, sent: Submitted, stage: str) -> str:
    """Wait for a stage, and return what the recipient noted about the last one."""
    status = await sender.wait_for(sent.id, stage, timeout_s=30)
    return status.recipients[0].steps[-1].detail


@asynccontextmanager
async def answering(
    *agents: tuple[PeerSession, Callable[[PeerSession, Received, int], Awaitable[object]]],
) -> AsyncIterator[dict[str, list[Received]]]:
    """Agents that answer everything they are shown, in their own way, for as long as the block lasts."""
    shown: dict[str, list[Received]] = {agent.label: [] for agent, _ in agents}

    async def run(agent: PeerSession, answer: Callable[[PeerSession, Received, int], Awaitable[object]]) -> None:
        async for message in agent.messages():
            shown[agent.label].append(message)
            await answer(agent, message, len(shown[agent.label]))

    tasks = [asyncio.create_task(run(*one)) for one in agents]
    try:
        yield shown
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def reply(agent: PeerSession, message: Received, count: int) -> None:
    """Answer, as a model that names what it answers."""
    await agent.reply(message, f"{agent.label} says {count}")


async def write_back(agent: PeerSession, message: Received, count: int) -> None:
    """Write to the sender, as a model that forgets to name what it answers."""
    await agent.send(message.sender, f"{agent.label} says {count}")


@pytest.mark.parametrize("way", [reply, write_back])
async def test_two_agents_that_answer_each_other_are_stopped(
    tmp_path: Path, way: Callable[[PeerSession, Received, int], Awaitable[object]]
) -> None:
    """After eight answers a person is asked, whether or not the models name what they answer."""
    async with two(tmp_path) as (_, alice, bob):
        one, other = await alice.open_session("one"), await bob.open_session("other")
        async with answering((one, way), (other, way)) as shown:
            await one.send("bob.box", "shall we talk?")
            await waits(alice, 1)
            await asyncio.sleep(0.2)

            hops = sorted(message.chain.hop for seen in shown.values() for message in seen if message.chain)
            print(f"{len(hops)} messages were shown, the last one {hops[-1]} answers after the first; then it was held")

            assert hops == list(range(9))
            assert [(h.reason, h.reached, h.allowed) for h in await alice.held()] == [("hops", 9, 8)]
            assert await bob.held() == []


async def test_a_person_begins_anew_and_is_never_held(tmp_path: Path) -> None:
    """However long the conversation was, what a person writes in it has no cause but the person."""
    async with two(tmp_path) as (_, alice, bob):
        other = await bob.open_session("other")
        async with answering((other, reply)) as shown:
            await alice.send("bob.box", "first", by_person=True)
            answers = alice.messages()
            for _ in range(12):
                answer = await anext(answers)
                assert answer.chain is not None
                assert answer.chain.hop == 1
                await alice.send(answer, "and then?", by_person=True)
            await answers.aclose()  # type: ignore[attr-defined]

            assert all(message.chain is None for message in shown["other"])
            assert not await alice.held()
            assert not await bob.held()


async def test_what_is_held_is_in_no_inbox_and_survives_until_a_person_decides(tmp_path: Path) -> None:
    """Not listed, not counted, not yielded, not found as a reply; after a restart it is there, and its sender knows."""
    async with two(tmp_path) as (homes, alice, bob):
        await bob.set_budget("hops", 0)
        agent = await alice.open_session("agent")
        asked = await bob.send("alice.box", "what is it?")
        question = await anext(agent.messages())

        sent = await agent.reply(question, "too far")

        assert await stage_of(alice, sent, "held") == "hops"
        assert await bob.inbox(unseen=False) == []
        assert (await bob.describe_mesh()).inbox_unseen == 0
        assert (await bob.describe_mesh()).held == 1
        assert (await bob.status(asked.id)).recipients[0].stage != Stage.REPLIED
    async with opened(homes.bob) as bob:
        assert [one.message.text for one in await bob.held()] == ["too far"]


async def test_a_released_message_is_shown_once_also_to_who_reads_already(tmp_path: Path) -> None:
    """It comes as if it came now: to a running reader, with the reply recorded; releasing it again is an error."""
    async with two(tmp_path) as (_, alice, bob):
        await bob.set_budget("pair", 0)
        agent = await alice.open_session("agent")
        sent = await agent.send("bob.box", "let me in")
        await waits(bob, 1)
        await alice.send("bob.box", "meanwhile")
        reader = bob.messages()
        assert (await anext(reader)).text == "meanwhile"

        (released,) = await bob.release_held(sent.id[:8])
        shown = await anext(reader)

        assert (shown.id, shown.text, shown.chain) == (sent.id, "let me in", Chain(sent.id, 0))
        assert released.message.id == sent.id
        await eventually(lambda: _notes(alice, sent, "released"))
        assert await bob.held() == []
        with pytest.raises(AddressError):
            await bob.release_held(sent.id)
        await reader.aclose()  # type: ignore[attr-defined]


async def _notes(sender: Peer, sent: Submitted, note: str) -> bool:
    status = await sender.status(sent.id)
    return any(step.detail == note for step in status.recipients[0].steps)


async def test_a_refused_message_is_gone_and_its_sender_is_told(tmp_path: Path) -> None:
    """Signed, with the code; the text is deleted from the disk's table, and a copy is refused as well."""
    async with two(tmp_path) as (homes, alice, bob):
        await bob.set_budget("pair", 0)
        agent = await alice.open_session("agent")
        sent = await agent.send("bob.box", "never mind this text")
        await waits(bob, 1)

        await bob.refuse_held(sender="alice")

        assert await stage_of(alice, sent, "refused") == "declined"
        assert await bob.held() == []
        assert await bob.inbox(unseen=False) == []
        with sqlite3.connect(homes.bob / "state.db") as journal:
            assert journal.execute("SELECT frame, signature FROM held").fetchall() == [(b"", b"")]


async def test_the_same_text_again_is_held_and_the_same_message_is_not(tmp_path: Path) -> None:
    """A repetition says nothing new; an id that is submitted twice is one message."""
    async with two(tmp_path) as (_, alice, bob):
        agent = await alice.open_session("agent")
        first = await agent.send("bob.box", "are you there?")
        await agent.send("bob.box", "are you there?", id=first.id)
        again = await agent.send("bob.box", "are you there?")

        assert await stage_of(alice, again, "held") == "repeat"
        assert [message.id for message in await bob.inbox()] == [first.id]


async def test_a_budget_holds_for_the_peer_that_it_names_and_outlives_the_process(tmp_path: Path) -> None:
    """The narrower decision goes first; what is counted is counted on after a restart."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            async with opened(homes.bob) as bob:
                await bob.set_budget("pair", 100)
                await bob.set_budget("pair", 2, "alice")
                agent = await alice.open_session("agent")
                for number in range(2):
                    await stage_of(alice, await agent.send("bob.box", f"message {number}"), "delivered")
                before = bob.budgets()
            async with opened(homes.bob) as bob:
                third = await agent.send("bob.box", "message 3")

                assert await stage_of(alice, third, "held") == "pair"
                assert bob.budgets() == before
                assert [(one.reached, one.allowed) for one in await bob.held()] == [(3, 2)]

                await bob.set_budget("pair", None, "alice")
                await bob.set_budget("pair", None)
                assert {one.amount for one in bob.budgets() if one.name == "pair"} == {Budgets().pair}


async def test_a_budget_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Nothing changes by it."""
    async with two(tmp_path) as (_, alice, _bob):
        for amount in (-1, 100_001):
            with pytest.raises(UsageError):
                await alice.set_budget("hops", amount)
        with pytest.raises(UsageError):
            await alice.set_budget("sends", 5, "bob")

        assert not any(one.is_decided for one in alice.budgets())


async def test_a_session_that_sent_too_much_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    """Its model is told why; another session and the person go on."""
    async with two(tmp_path) as (_, alice, bob):
        await alice.set_budget("sends", 3)
        await bob.set_budget("pair", 100)
        agent, other = await alice.open_session("agent"), await alice.open_session("other")
        for number in range(3):
            await agent.send("bob.box", f"message {number}")

        with pytest.raises(LocalError) as caught:
            await agent.send("bob.box", "message 4")

        assert caught.value.code == "budget_spent"
        await other.send("bob.box", "of another session")
        await alice.send("bob.box", "of the person")
        await eventually(lambda: _has(bob, 5))


async def _has(peer: Peer, count: int) -> bool:
    return len(await peer.inbox()) == count


async def test_a_paused_mesh_is_silent_for_agents_and_not_for_people(tmp_path: Path) -> None:
    """At once: nothing is shown to an agent, nothing sent by one; people write and read; then it goes on, once each."""
    async with two(tmp_path) as (_, alice, bob):
        agent = await bob.open_session("agent")
        async with answering((agent, reply)) as shown:
            await bob.pause()
            sent = await alice.send("bob.box", "hello?", by_person=True)

            assert await stage_of(alice, sent, "held") == "paused"
            for speaker in (agent, bob):
                with pytest.raises(LocalError) as caught:
                    await _write(speaker)
                assert caught.value.code == "paused"
            assert [message.text for message in await bob.inbox()] == ["hello?"]
            await bob.send("alice.box", "I am here, my agent is not", by_person=True)
            await eventually(lambda: _has(alice, 1))
            assert shown["agent"] == []

            await bob.resume()

            await eventually(lambda: _has(alice, 2))
            assert [message.text for message in await alice.inbox()] == ["I am here, my agent is not", "agent says 1"]
            assert [message.text for message in shown["agent"]] == ["hello?"]


async def _write(speaker: Correspondent) -> None:
    await speaker.send("alice.box", "is anybody there?")


async def test_a_pause_outlives_the_process_and_stops_what_agents_wrote_before(tmp_path: Path) -> None:
    """What waits in the outbox because there was no link is sent after the resume, not by the next link."""
    async with serving(tmp_path) as broker:
        port = broker.port
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
    async with opened(homes.alice) as alice:
        agent = await alice.open_session("agent")
        await agent.send("bob.box", "by the agent")
        await agent.send("#general", "posted by the agent")
        await alice.send("bob.box", "by the person", by_person=True)
        await alice.pause()

    async with serving(tmp_path, listen=Listen("127.0.0.1", port)):
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            await eventually(lambda: _has(bob, 1))
            await asyncio.sleep(0.3)
            assert [message.text for message in await bob.inbox()] == ["by the person"]

            await alice.resume()

            await eventually(lambda: _has(bob, 3))
            texts = {message.text for message in await bob.inbox()}
            assert texts == {"by the person", "by the agent", "posted by the agent"}


async def test_dnd_lets_through_only_what_may_interrupt(tmp_path: Path) -> None:
    """`now` of a granted peer; the rest is held for that reason, and read when it ends."""
    async with two(tmp_path) as (_, alice, bob):
        agent = await bob.open_session("agent")
        async with answering((agent, write_back)) as shown:
            await bob.set_dnd(True)
            later = await alice.send("bob.box", "when you have time")
            pressing = await alice.send("bob.box", "at once!", priority="now")
            assert await stage_of(alice, later, "held") == "dnd"
            assert await stage_of(alice, pressing, "held") == "dnd"

            await bob.grant("alice", "now")
            await alice.send("bob.box", "now you must", priority="now")
            await anext(alice.messages())

            assert "when you have time" not in {message.text for message in shown["agent"]}
            await bob.set_dnd(False)
            await eventually(lambda: _was_shown(shown["agent"], "when you have time"))
            texts = [message.text for message in shown["agent"]]
            assert sorted(texts) == sorted(set(texts))


async def _was_shown(shown: list[Received], text: str) -> bool:
    return text in {message.text for message in shown}


async def test_an_agents_text_with_a_credential_is_neither_sent_nor_stored(tmp_path: Path) -> None:
    """The model learns the line and the kind; with the override it is its own decision."""
    async with two(tmp_path) as (homes, alice, bob):
        agent = await alice.open_session("agent")

        with pytest.raises(LocalError) as caught:
            await agent.send("bob.box", f"use this:\n{TOKEN}")

        assert caught.value.code == "credential"
        assert "line 2" in caught.value.detail
        assert TOKEN not in str(caught.value)
        assert not any(TOKEN.encode() in file.read_bytes() for file in homes.alice.iterdir() if file.is_file())

        await agent.send("bob.box", f"use this:\n{TOKEN}", allow_secret=True)
        assert TOKEN in (await anext(bob.messages())).text


async def test_a_turn_that_the_user_begins_has_no_earlier_cause(tmp_path: Path) -> None:
    """Until then the deepest message that was shown counts; afterwards what the agent writes is a beginning."""
    async with two(tmp_path) as (_, alice, bob):
        agent, other = await bob.open_session("agent"), await alice.open_session("other")
        sent = await other.send("bob.box", "please look at this")
        await anext(agent.messages())

        because = await agent.send("alice.box", "looking")
        agent.begin_turn()
        anew = await agent.send("alice.box", "by the way")

        await eventually(lambda: _has(alice, 2))
        chains = {message.id: message.chain for message in await alice.inbox()}
        assert chains == {because.id: Chain(sent.id, 1), anew.id: Chain(anew.id, 0)}


async def test_a_conversation_that_returns_by_a_third_peer_is_held(tmp_path: Path) -> None:
    """Alice wrote to Bob, Bob to Carol: what Carol writes to Alice of it is a loop of three."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            link, _ = await alice.invite()
        await claudemesh.join(link, name="carol", device="box", config_dir=tmp_path / "carol")
        async with opened(homes.alice) as alice, opened(homes.bob) as bob, opened(tmp_path / "carol") as carol:
            for one in (alice, bob, carol):
                for name in ("alice.box", "bob.box", "carol.box"):
                    await knows(one, name)
            agents = [await one.open_session("agent") for one in (alice, bob, carol)]
            await agents[0].send("bob.box", "tell carol")
            await anext(agents[1].messages())
            await agents[1].send("carol.box", "alice says hello")
            await anext(agents[2].messages())

            back = await agents[2].send("alice.box", "bob says that you say hello")

            assert await stage_of(carol, back, "held") == "revisit"
            assert [one.reason for one in await alice.held()] == ["revisit"]


async def test_a_reply_is_one_further_than_what_it_names_whoever_wrote_that(tmp_path: Path) -> None:
    """Also an own message, a post, and one that nobody here knows."""
    async with two(tmp_path) as (_, alice, bob):
        agent = await alice.open_session("agent")
        first = await agent.send("bob.box", "first")
        post = await agent.send("#general", "posted", reply_to=first.id)
        unknown = MessageId("ab" * 16)

        for number, named in enumerate((first.id, post.id, unknown)):
            await agent.send("bob.box", f"about {number}", reply_to=named)

        await eventually(lambda: _has(bob, 5))
        chains = {message.text: message.chain for message in await bob.inbox()}
        assert chains["about 0"] == chains["posted"] == Chain(first.id, 1)
        assert chains["about 1"] == Chain(first.id, 2)
        assert chains["about 2"] == Chain(unknown, 1)
