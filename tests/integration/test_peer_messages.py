"""Two real peers and a real broker: every message arrives once, and each stage has its evidence."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import claudemesh
from claudemesh.crypto import envelope, identity
from claudemesh.crypto.statements import Statement, open_statement
from claudemesh.errors import AddressError, Unreachable
from claudemesh.peer import Peer, Received, Runtime, Stage, Tempo
from claudemesh.peer.correspondence import Correspondent
from claudemesh.peer.journal import keys
from claudemesh.protocol.delivery import Witness
from claudemesh.types import MessageId
from tests.brokers import BrokerProcess, serving
from tests.faults.peers import enrol, knows, next_message, opened
from tests.teams import silent, take

ID = MessageId("ab" * 16)


async def test_each_stage_of_a_message_is_proven_by_whoever_knows_it(tmp_path: Path) -> None:
    """`accepted` by the broker's signature, `delivered` by a frame that an attested session of the recipient signed."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            sent = await alice.send("bob", "the tests are green")
            received = await next_message(bob)
            await alice.wait_for(sent.id, "delivered", 10)
            await bob.reply(received, "good")
            status = await alice.wait_for(sent.id, "replied", 10)

            assert received.text == "the tests are green"
            assert received.sender == "alice.box"
            (recipient,) = status.recipients
            steps = {step.stage: step for step in recipient.steps}
            assert list(steps) == [Stage.QUEUED, Stage.ACCEPTED, Stage.DELIVERED, Stage.REPLIED]
            assert steps[Stage.ACCEPTED].signer == broker.id
            accepted = await alice.evidence(steps[Stage.ACCEPTED].evidence or 0)
            assert accepted is not None
            statement = Statement(accepted.content.decode(), broker.id, accepted.signature.hex())
            assert sent.id in [row["id"] for row in open_statement(statement, "accept", broker.id)["r"]]
            delivered = await alice.evidence(steps[Stage.DELIVERED].evidence or 0)
            assert delivered is not None
            attested = await alice._parts.journal.read(
                lambda connection: keys.load_attestation(connection, alice.mesh, delivered.attestation)
            )
            assert attested is not None
            attestation = identity.open_attestation(attested)
            assert attestation.member == bob.id
            envelope.verify_frame(delivered.content, delivered.signature, attestation)
            assert sent.id in delivered.content.decode(errors="replace")


async def test_a_message_waits_for_a_recipient_that_is_offline(tmp_path: Path) -> None:
    """It is `accepted` and no more, and arrives when the recipient comes, the sender being gone."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            sent = await alice.send("bob.box", "for later")
            status = await alice.wait_for(sent.id, "accepted", 10)
            assert status.recipients[0].stage is Stage.ACCEPTED
            with pytest.raises(Unreachable, match="timeout"):
                await alice.wait_for(sent.id, "delivered", 0.3)

        async with opened(homes.bob) as bob:
            assert (await next_message(bob)).text == "for later"
        async with opened(homes.alice) as alice, opened(homes.bob):
            await alice.wait_for(sent.id, "delivered", 10)


async def test_without_a_broker_messages_queue_and_go_out_by_themselves(tmp_path: Path) -> None:
    """What was queued survives a restart of its sender, too."""
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        await broker.kill()
        async with opened(homes.alice) as alice:
            first = await alice.send("bob", "one")
            assert (await alice.status(first.id)).recipients[0].stage is Stage.QUEUED
        async with opened(homes.alice) as alice:
            await alice.send("bob", "two")
            await asyncio.sleep(0.2)
            await broker.start()

            async with opened(homes.bob) as bob:
                assert {message.text for message in await take(bob, 2)} == {"one", "two"}
                await silent(bob)


async def test_a_broker_that_is_killed_at_any_time_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Messages in flight are found again in the journal and submitted under the same ids."""
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            texts = [f"message {number}" for number in range(150)]

            async def send() -> None:
                for text in texts:
                    await alice.send("bob", text)
                    await asyncio.sleep(0.005)

            sending = asyncio.create_task(send())
            for _ in range(3):
                await asyncio.sleep(0.2)
                await broker.kill()
                await broker.start()
            await sending

            received = await take(bob, len(texts))
            assert sorted(message.text for message in received) == sorted(texts)
            await silent(bob)


async def test_the_same_id_submitted_again_is_the_same_message(tmp_path: Path) -> None:
    """A caller that does not know whether it has sent may send again."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            await alice.send("bob", "once", id=ID)
            await alice.wait_for(ID, "delivered", 10)
            await alice.send("bob", "once", id=ID)

            assert [message.id for message in await take(bob, 1)] == [ID]
            await silent(bob)


async def test_a_question_gets_its_reply_and_no_other_reader_does(tmp_path: Path) -> None:
    """`ask` is a call; its answer is not also a message."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:

            async def answer() -> None:
                question = await next_message(bob)
                await bob.reply(question, question.text.upper())

            answering = asyncio.create_task(answer())
            reply = await alice.ask("bob", "ready?", timeout_s=20)
            await answering

            assert reply.text == "READY?"
            await silent(alice)


async def test_a_question_without_a_reply_times_out_and_stays_sent(tmp_path: Path) -> None:
    """The late reply then arrives as a message."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            with pytest.raises(Unreachable, match="timeout"):
                await alice.ask("bob", "ready?", timeout_s=0.3)

            await bob.reply(await next_message(bob), "late")

            assert (await next_message(alice)).text == "late"


async def test_a_message_to_a_user_reaches_every_device_of_it(tmp_path: Path) -> None:
    """One id, one row per device, each with a timeline of its own."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            link, _ = await bob.invite(device=True)
            await claudemesh.join(link, name="bob", device="phone", config_dir=tmp_path / "phone")
            async with opened(tmp_path / "phone") as phone, opened(homes.alice) as alice:
                await knows(alice, "bob.phone")
                sent = await alice.send("bob", "both of you")

                assert set(sent.peers) == {bob.id, phone.id}
                assert (await next_message(bob)).id == (await next_message(phone)).id == sent.id
                assert phone.user == bob.user
                assert phone.id != bob.id


async def test_a_message_to_a_session_is_for_that_session(tmp_path: Path) -> None:
    """The other session does not see it; a message to the peer as such is for every reader."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            api = await bob.open_session("payments-api")
            web = await bob.open_session("web")
            await until(lambda: alice.resolve("bob.box/payments-api"))

            await alice.send("payments-api", "for the api")
            received = await until(lambda: next_of(api))

            assert received.text == "for the api"
            assert received.session == api.id
            assert await web.inbox() == []
            reply = await api.reply(received, "here")
            assert (await next_message(alice)).sender_session == api.id
            assert reply.peers == (alice.id,)


async def test_two_sessions_of_one_peer_talk(tmp_path: Path) -> None:
    """Sessions on one machine are addressed like any other, and the same way encrypted."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            await alice.wait_connected(10)
            one, two = await alice.open_session("one"), await alice.open_session("two")

            await one.send("alice.box/two", "hello")
            received = await until(lambda: next_of(two))
            assert await one.inbox() == []
            await two.reply(received, "hello back")
            answer = await until(lambda: next_of(one))

            assert (received.sender_session, answer.sender_session) == (one.id, two.id)


async def test_a_message_whose_time_passed_is_expired_and_not_sent(tmp_path: Path) -> None:
    """Its sender says so; the broker never had it."""
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        await broker.kill()
        async with opened(homes.alice) as alice:
            sent = await alice.send("bob", "short-lived", expires_in_ms=50)
            status = await alice.wait_for(sent.id, "expired", 10)
            assert status.recipients[0].shown.witness is Witness.SENDER

            await broker.start()
            async with opened(homes.bob) as bob:
                await bob.wait_connected(10)
                await silent(bob)


async def test_the_broker_says_that_a_message_expired_in_a_mailbox(tmp_path: Path) -> None:
    """By a signed notice, which reaches a sender that was offline meanwhile."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            sent = await alice.send("bob", "short-lived", expires_in_ms=700)
            await alice.wait_for(sent.id, "accepted", 10)

            status = await alice.wait_for(sent.id, "expired", 90)

            assert status.recipients[0].shown.witness is Witness.BROKER
            assert status.recipients[0].steps[-1].evidence is not None


async def test_a_message_to_a_removed_peer_is_refused(tmp_path: Path) -> None:
    """Also when it was removed after the message was accepted: the broker's notice says so."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            bob = alice.resolve("bob").peers[0]
            sent = await alice.send("bob", "too late")
            await alice.wait_for(sent.id, "accepted", 10)

            await alice.revoke("bob")
            status = await alice.wait_for(sent.id, "refused", 10)

            assert status.recipients[0].steps[-1].detail == "revoked"
            with pytest.raises(AddressError):
                await alice.send(bob[:16], "nobody")


async def test_receipts_of_evidence_are_signed_by_the_session_that_has_it(tmp_path: Path) -> None:
    """`read` is stated by the session in whose context the text is."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            session = await bob.open_session("api")
            sent = await alice.send("bob", "read me")
            received = await until(lambda: next_of(session))
            await session.mark(received, Stage.OFFERED, "hook")
            await session.mark(received, Stage.READ)

            status = await alice.wait_for(sent.id, "read", 10)

            steps = {step.stage: step for step in status.recipients[0].steps}
            assert steps[Stage.READ].signer == session.id
            assert steps[Stage.OFFERED].detail == "hook"


async def test_an_unread_message_is_there_after_a_restart_and_a_read_one_is_not(tmp_path: Path) -> None:
    """A reader has a message when it asks for the next one."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            for text in ("one", "two"):
                sent = await alice.send("bob", text)
                await alice.wait_for(sent.id, "delivered", 10)
            reading = bob.messages()
            assert (await anext(reading)).text == "one"
            assert (await anext(reading)).text == "two"
            await reading.aclose()  # type: ignore[attr-defined]

        async with opened(homes.bob) as bob:
            assert [message.text for message in await bob.inbox()] == ["two"]


async def test_a_hundred_messages_at_once_arrive_in_order(tmp_path: Path) -> None:
    """Per sender by their numbers; a rate limit of the broker only slows them down."""
    async with serving(tmp_path, limits={"messages_burst": 20, "messages_per_second": 200}) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            texts = [str(number) for number in range(100)]
            for text in texts:
                await alice.send("bob", text)

            received = await take(bob, 100)

            assert sorted(received, key=lambda one: int(one.text)) == sorted(received, key=lambda one: one.sent_at)
            assert sorted(int(one.text) for one in received) == list(range(100))


async def test_a_session_that_runs_for_longer_than_its_attestation_goes_on(tmp_path: Path) -> None:
    """It is attested anew before its time is over."""
    short = Runtime(tempo=Tempo(session_lifetime_ms=1_200, housekeeping_ms=100, receipt_delay_ms=10))
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice, short) as alice, opened(homes.bob) as bob:
            first = (await take_one(alice, bob, "before")).sender_session
            await asyncio.sleep(2.5)

            assert (await take_one(alice, bob, "after")).sender_session != first


async def take_one(sender: Peer, recipient: Peer, text: str) -> Received:
    """Send a text by name, and take it at the other end."""
    await sender.send(recipient.id[:16], text)
    received = await next_message(recipient)
    assert received.text == text
    await recipient.mark_seen(received)
    return received


async def next_of(reader: Correspondent) -> Received:
    """The first unseen message, or IndexError."""
    return (await reader.inbox())[0]


async def until(probe: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Repeat a probe until it raises nothing."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                result = probe()
                return await result if asyncio.iscoroutine(result) else result
            except (AddressError, IndexError):
                await asyncio.sleep(0.02)
