"""Presence through a real broker: joins, leaves, sessions, what survives a restart (docs/spec/broker.md §5)."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import identity, statements
from claudemesh.errors import Refused
from claudemesh.protocol import messages
from tests import wire_client as wire
from tests.brokers import serving

GRACE_MS = 1_500


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with serving(tmp_path, limits={"rejoin_grace_ms": GRACE_MS}) as running:
        yield running


async def event(link: wire.Wire, broker: Broker) -> tuple[str, str]:
    body = statements.open_statement((await link.expect(messages.Sys)).st, "sys", broker.id)
    statements.check_fields(body, messages.SYS_FIELDS, messages.SYS_OPTIONAL)
    return body["ev"], body["who"]


async def listing(link: wire.Wire) -> dict[str, messages.PeerPresence]:
    answer = await link.request(messages.Peers, messages.ListPeers)
    return {one.member: one for one in answer.peers}


async def forget_joins(one: wire.Identity, broker: Broker) -> None:
    """Wait until the links that made the mesh count no more."""
    await asyncio.sleep(GRACE_MS / 1_000 + 1.2)


async def test_join_and_leave_are_told_to_the_others(broker: Broker) -> None:
    """The leave comes only when the grace has passed."""
    owner, other = await wire.mesh_of(broker.url, 2)
    await forget_joins(other, broker)
    async with wire.member(broker.url, owner) as watching:
        async with wire.member(broker.url, other):
            joined = await event(watching, broker)
        lost_at = wire.now()
        left = await event(watching, broker)
        waited_ms = wire.now() - lost_at

    assert joined == ("peer_joined", other.id)
    assert left == ("peer_left", other.id)
    assert waited_ms >= GRACE_MS - 50


async def test_reconnect_within_the_grace_is_neither_a_leave_nor_a_join(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    await forget_joins(other, broker)
    async with wire.member(broker.url, owner) as watching:
        async with wire.member(broker.url, other):
            await event(watching, broker)
        async with wire.member(broker.url, other):
            silent = await watching.quiet(messages.Sys, (GRACE_MS + 1_200) / 1_000)

    assert silent


async def test_silent_link_ends_with_its_lease_and_its_peer_has_left(tmp_path: Path) -> None:
    """No ping for a whole lease: gone at once, without a grace."""
    limits = {"presence_lease_ms": 1_000, "rejoin_grace_ms": 60_000}
    async with serving(tmp_path, limits=limits) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as watching:

            async def keep_alive() -> None:
                while True:
                    await asyncio.sleep(0.2)
                    await watching.send(messages.Ping())

            pings = asyncio.create_task(keep_alive())
            async with wire.member(broker.url, other) as dead:
                left = await event(watching, broker)
                ended = await dead.ended()
            pings.cancel()

    assert left == ("peer_left", other.id)
    assert ended is None


async def test_peers_lists_sessions_with_their_attestations(broker: Broker) -> None:
    """Whoever asks can verify each session that the broker names."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, other, sid="one"), wire.member(broker.url, owner) as link:
        online = (await listing(link))[other.id]
    async with wire.member(broker.url, owner) as link:
        offline = (await listing(link))[other.id]

    [session] = online.sessions
    assert (session.sess, session.sid, session.status) == (other.session.id, "one", "idle")
    assert identity.open_attestation(session.att).member == other.id
    assert offline.sessions == []
    assert offline.seen >= session.since


async def test_one_link_carries_several_sessions_until_they_end(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    second = identity.session_keys(os.urandom(64))
    statement = identity.attest(other.sign, other.mesh, second, wire.now(), 60_000)

    async with wire.member(broker.url, other) as link, wire.member(broker.url, owner) as watching:
        await link.request(messages.Ok, messages.Attest, st=statement, sid="two", status="busy")
        both = (await listing(watching))[other.id].sessions
        await link.send(messages.SetStatus(sess=second.id, status="away"))
        await link.quiet(messages.Push, 0)
        away = (await listing(watching))[other.id].sessions
        await link.send(messages.End(sess=second.id))
        await link.quiet(messages.Push, 0)
        one = (await listing(watching))[other.id].sessions

    assert {(session.sid, session.status) for session in both} == {("", "idle"), ("two", "busy")}
    assert {session.status for session in away} == {"idle", "away"}
    assert [session.sess for session in one] == [other.session.id]


async def test_attestation_that_is_not_live_lets_queued_envelopes_out_without_presence(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    ended = identity.session_keys(os.urandom(64))
    statement = identity.attest(owner.sign, owner.mesh, ended, wire.now(), 60_000)

    async with wire.member(broker.url, owner) as link:
        await link.request(messages.Ok, messages.Attest, st=statement, live=False)
        await link.submit(owner.envelope(other.id, att=statements.statement_digest(statement, "att")))
        sessions = (await listing(link))[owner.id].sessions

    assert [session.sess for session in sessions] == [owner.session.id]


async def test_nobody_attests_for_another_peer_or_mesh(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    elsewhere = identity.attest(owner.sign, "f" * 64, owner.session, wire.now(), 60_000)  # type: ignore[arg-type]
    expired = identity.attest(owner.sign, owner.mesh, owner.session, wire.UnixMillis(wire.now() - 60_000), 1_000)

    codes = []
    async with wire.member(broker.url, owner) as link:
        for statement in (other.attestation(), elsewhere, expired):
            with pytest.raises(Refused) as refused:
                await link.request(messages.Ok, messages.Attest, st=statement)
            codes.append(refused.value.code)

    assert codes == ["invalid"] * 3


async def test_restart_of_the_broker_is_neither_a_leave_nor_a_join(tmp_path: Path) -> None:
    """Everybody comes back at once; nobody is announced to anybody."""
    limits = {"rejoin_grace_ms": 60_000}
    async with serving(tmp_path, limits=limits) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, other), wire.member(broker.url, owner) as link:
            before = (await listing(link))[other.id]
            await broker.__aexit__()
    async with (
        serving(tmp_path, limits=limits) as broker,
        wire.member(broker.url, owner) as link,
    ):
        seen = (await listing(link))[other.id].seen
        async with wire.member(broker.url, other):
            silent = await link.quiet(messages.Sys)

    assert seen >= before.sessions[0].since
    assert silent


async def test_large_mesh_is_not_flooded_with_joins(tmp_path: Path) -> None:
    """Each join would cost a frame for everybody who is there: above a limit peers ask instead."""
    async with serving(tmp_path, limits={"presence_fanout_links": 2, "rejoin_grace_ms": 1}) as broker:
        owner, *others = await wire.mesh_of(broker.url, 4)
        await asyncio.sleep(1.2)
        async with wire.member(broker.url, owner) as watching, wire.member(broker.url, others[0]):
            joined = await event(watching, broker)
            async with wire.member(broker.url, others[1]), wire.member(broker.url, others[2]):
                silent = await watching.quiet(messages.Sys)

    assert joined == ("peer_joined", others[0].id)
    assert silent


async def test_card_is_kept_when_it_is_newer_and_served_to_others(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, other) as link, wire.member(broker.url, owner) as asking:
        await link.request(messages.Ok, messages.PutCard, st=other.card(2))
        with pytest.raises(Refused) as older:
            await link.request(messages.Ok, messages.PutCard, st=other.card(1))
        with pytest.raises(Refused) as foreign:
            await link.request(messages.Ok, messages.PutCard, st=owner.card(3))
        cards = await asking.request(messages.Cards, messages.GetCards, members=[other.id, owner.id, "x" * 64])

    assert (older.value.code, foreign.value.code) == ("invalid", "invalid")
    assert [identity.open_card(card).number for card in cards.cards] == [2]
