"""Messages, rosters and presence across the nodes of one broker (docs/spec/cluster.md)."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from claudemesh.broker import cluster as cluster_module
from claudemesh.broker import members
from claudemesh.errors import LocalError, Refused
from claudemesh.protocol import codec, messages
from claudemesh.protocol.roster import GENERAL
from tests import wire_client as wire
from tests.channel_wire import DEPLOYS, append, audit_rows, private_channel
from tests.clusters import HEARD_WITHIN_S, Cluster, local_cluster, real_cluster, until
from tests.nats_server import nats_server
from tests.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["one-process", "postgresql-nats"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster without nodes."""
    if request.param == "one-process":
        async with local_cluster(tmp_path) as cluster:
            yield cluster
        return
    async with nats_server() as nats:
        async with real_cluster(tmp_path, request.getfixturevalue("postgres").database(), nats) as cluster:
            yield cluster


@pytest.fixture
async def cluster(empty: Cluster) -> Cluster:
    """A cluster of two."""
    await empty.start()
    await empty.start()
    return empty


def urls(cluster: Cluster) -> tuple[str, str]:
    first, second = cluster.nodes[:2]
    return first.url, second.url


async def test_envelope_crosses_nodes_as_its_sender_wrote_it(cluster: Cluster) -> None:
    """Sender on one node, recipient on the other: pushed by a hint, with the attestation, once."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    letter = owner.envelope(bob.id)

    async with wire.member(here, owner) as sending, wire.member(there, bob) as receiving:
        await sending.submit(letter)
        async with asyncio.timeout(HEARD_WITHIN_S):
            push = await receiving.expect(messages.Push)
        await receiving.acknowledge(*push.d)
        alone = await receiving.quiet(messages.Push)

    assert bytes(push.d[0].e) == codec.encode_message(letter)
    assert push.atts == [owner.attestation()]
    assert alone


async def test_letters_to_a_peer_of_the_other_node_come_in_the_order_of_acceptance(cluster: Cluster) -> None:
    """Through a backlog and beside it, nothing lost and nothing twice."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    letters = [owner.envelope(bob.id) for _ in range(150)]

    async with wire.member(here, owner) as sending, wire.member(there, bob) as receiving:
        for letter in letters:
            await sending.send(letter)
        deliveries: list[messages.Delivery] = []
        while len(deliveries) < len(letters):
            some = (await receiving.expect(messages.Push)).d
            await receiving.acknowledge(*some)
            deliveries += some
        alone = await receiving.quiet(messages.Push)

    assert [codec.decode_envelope(bytes(one.e)).id for one in deliveries] == [one.id for one in letters]
    assert alone


async def test_post_reaches_members_on_every_node(cluster: Cluster) -> None:
    """One commit, one row in each mailbox, whichever node the members are on."""
    here, there = urls(cluster)
    owner, bob, carol = await wire.mesh_of(here, 3)
    post = owner.post(GENERAL)

    async with wire.member(here, owner) as sending, wire.member(here, bob) as bobs:
        async with wire.member(there, carol) as carols:
            await sending.submit(post)
            async with asyncio.timeout(HEARD_WITHIN_S):
                pushes = [await link.expect(messages.Push) for link in (bobs, carols)]

    assert [bytes(push.d[0].e) for push in pushes] == [codec.encode_message(post)] * 2


async def test_who_is_admitted_on_one_node_may_enter_another_at_once(cluster: Cluster) -> None:
    """Every hello is checked against the roster in the store; the other node need not have heard of the mesh."""
    here, there = urls(cluster)
    owner, bob = wire.Identity(), wire.Identity()
    mesh = await wire.found(here, owner)
    async with wire.member(there, owner):
        invite = await wire.issue(here, owner)
        await wire.join(here, bob, mesh, invite)

        async with wire.member(there, bob) as bobs:
            await bobs.submit(bob.envelope(owner.id))


async def test_an_invite_is_used_as_often_as_it_allows_whatever_node_its_holders_ask(cluster: Cluster) -> None:
    """Six hold one link for two, and come at once, three to each node."""
    here, there = urls(cluster)
    owner = wire.Identity()
    mesh = await wire.found(here, owner)
    invite = await wire.issue(there, owner, uses=2)

    async def come(url: str) -> str:
        try:
            await wire.join(url, wire.Identity(), mesh, invite)
        except Refused as error:
            return error.code
        return "admitted"

    came = await asyncio.gather(*(come(url) for url in (here, there) * 3))
    async with wire.member(there, owner):
        admitted = len(owner.roster.members) - 1

    assert sorted(came) == ["admitted"] * 2 + ["invalid"] * 4
    assert admitted == 2


async def test_an_entry_is_announced_to_the_links_of_every_node(cluster: Cluster) -> None:
    """With the same signed head."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)

    async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
        appended = await owners.append(owner.invite(wire.random_key()))
        async with asyncio.timeout(HEARD_WITHIN_S):
            log = await bobs.expect(messages.Log)

    assert log.seq == appended.seq
    assert log.sth == appended.sth


async def test_who_is_revoked_on_one_node_loses_its_link_on_the_other(cluster: Cluster) -> None:
    """And what waited for it, of which the sender is told."""
    here, there = urls(cluster)
    owner, bob, carol = await wire.mesh_of(here, 3)
    async with wire.member(there, carol) as carols:
        await carols.submit(carol.envelope(bob.id))
        async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
            await owners.append(owner.entry("revoke", who=bob.id, why="stolen"))
            async with asyncio.timeout(HEARD_WITHIN_S):
                last = await bobs.ended()
                [notice] = await carols.deliveries(1)

    assert isinstance(last, messages.Closing)
    assert last.code == "revoked"
    assert notice.st is not None


def without_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes hear nothing of each other, and do not ask either."""
    monkeypatch.setattr(cluster_module.Cluster, "receive", lambda *_: None)
    monkeypatch.setattr(cluster_module, "POLL_S", 3_600.0)


async def test_nothing_is_stored_under_a_roster_that_another_node_has_moved(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any hint or poll, the commit itself finds that the members have changed."""
    without_hints(monkeypatch)
    here, there = urls(cluster)
    owner, bob, carol = await wire.mesh_of(here, 3)
    await private_channel(here, owner, bob, carol)
    async with wire.member(there, bob) as bobs:
        await bobs.submit(bob.post(DEPLOYS))
        await append(here, owner, "chan_del", chan=DEPLOYS, who=carol.id)

        with pytest.raises(Refused) as refused:
            await bobs.submit(bob.post(DEPLOYS))

    assert refused.value.code == "stale_roster"


async def test_a_subscription_on_one_node_counts_for_posts_on_the_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, although no hint arrives: who has asked for a channel misses none of its posts."""
    without_hints(monkeypatch)
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
        await owners.submit(owner.post(GENERAL))
        await bobs.subscribe(GENERAL, False)
        await owners.submit(owner.post(GENERAL))
        await bobs.subscribe(GENERAL, True)
        await owners.submit(owner.post(GENERAL))

    async with wire.member(there, bob) as bobs:
        deliveries = await bobs.deliveries(2)
        alone = await bobs.quiet(messages.Push)

    assert len(deliveries) == 2
    assert alone


async def test_a_node_learns_from_a_message_that_it_is_behind(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that knows more of the roster than its node is not told that the recipient does not exist."""
    without_hints(monkeypatch)
    here, there = urls(cluster)
    owner, newcomer = wire.Identity(), wire.Identity()
    mesh = await wire.found(here, owner)
    invite = await wire.issue(here, owner)
    async with wire.member(there, owner) as owners:
        await wire.join(here, newcomer, mesh, invite)
        owner.roster = newcomer.roster

        row = await owners.submit(owner.envelope(newcomer.id))

    assert row["to"] == newcomer.id


async def test_a_lost_hint_costs_time_and_nothing_else(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bus cut, mail and entries come by the poll, and go on when it is mended."""
    monkeypatch.setattr(cluster_module, "POLL_WITHOUT_BUS_S", 0.2)
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
        await cluster.cut()
        await until(lambda: not any(node._bus is None or node._bus.is_connected() for node in cluster.nodes))
        await owners.submit(owner.envelope(bob.id))
        appended = await owners.append(owner.invite(wire.random_key()))

        [delivery] = await bobs.deliveries(1)
        log = await bobs.expect(messages.Log)

    assert delivery.e is not None
    assert log.seq == appended.seq


async def test_a_session_has_one_link_on_all_nodes(cluster: Cluster) -> None:
    """The older one is replaced, and what it had not acknowledged goes to the newer one."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(here, owner) as owners, wire.member(here, bob) as older:
        await owners.submit(owner.envelope(bob.id))
        [first] = await older.deliveries(1)

        async with wire.member(there, bob) as newer:
            async with asyncio.timeout(HEARD_WITHIN_S):
                [second] = await newer.deliveries(1)
                last = await older.ended()

    assert first.q == second.q
    assert isinstance(last, messages.Closing)
    assert last.code == "replaced"


async def test_peers_of_every_node_are_listed_with_their_sessions(cluster: Cluster) -> None:
    """Status and attestation included; whoever asks, on whichever node."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(here, owner) as owners, wire.member(there, bob, sid="api") as bobs:
        await bobs.send(messages.SetStatus(sess=bob.session.id, status="busy"))

        async def statuses() -> dict[str, list[str]]:
            peers = (await owners.request(messages.Peers, messages.ListPeers)).peers
            return {peer.member: [session.status for session in peer.sessions] for peer in peers}

        async with asyncio.timeout(10):
            while (await statuses()).get(bob.id) != ["busy"]:  # noqa: ASYNC110
                await asyncio.sleep(0.3)
        peers = (await owners.request(messages.Peers, messages.ListPeers)).peers

    [session] = next(peer for peer in peers if peer.member == bob.id).sessions
    assert (session.sess, session.sid, session.att) == (bob.session.id, "api", bob.attestation())


async def test_joins_and_leaves_are_told_on_every_node_and_recorded_once(
    empty: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One `peer_joined` and one `peer_left` for each link, one row each in the audit log."""
    monkeypatch.setattr(members, "DEPART_INTERVAL_MS", 200)
    limits = {"rejoin_grace_ms": 300, "presence_lease_ms": 60_000}
    here, there = [(await empty.start(limits=limits)).url for _ in range(2)]
    owner, bob, carol = await wire.mesh_of(here, 3)
    async with wire.member(here, owner) as owners, wire.member(there, carol) as carols:
        async with asyncio.timeout(15):
            await _event(owners, "peer_left", bob.id)
            await _event(carols, "peer_left", bob.id)
        async with wire.member(there, bob):
            async with asyncio.timeout(HEARD_WITHIN_S):
                joins = [await _event(link, "peer_joined", bob.id) for link in (owners, carols)]
        async with asyncio.timeout(15):
            leaves = [await _event(link, "peer_left", bob.id) for link in (owners, carols)]
        recorded: list[str] = []
        async with asyncio.timeout(10):
            while len(recorded) < 4:
                rows = await audit_rows(owners)
                recorded = [row["event_type"] for row in rows if row["actor_peer_id"] == bob.id[:16]]

    assert len({join.st for join in joins}) == 1
    assert len({leave.st for leave in leaves}) == 1
    assert recorded == ["connect", "disconnect"] * 2


async def test_a_presence_event_that_the_broker_did_not_sign_is_not_shown(cluster: Cluster) -> None:
    """Whoever reaches the bus cannot speak in the broker's name."""
    from claudemesh.broker.bus.base import Said
    from claudemesh.broker.notices import presence_event

    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(there, bob) as bobs:
        forged = presence_event(owner.mesh, "peer_joined", owner.id, wire.random_key(), wire.now())
        true = presence_event(owner.mesh, "peer_left", owner.id, cluster.nodes[0]._core.key, wire.now())
        altered = type(true)(true.b.replace("left", "joined"), true.k, true.s)
        for statement in (forged, altered):
            cluster.nodes[0]._bus.publish(Said(owner.mesh, owner.id, statement))  # type: ignore[union-attr]

        silent = await bobs.quiet(messages.Sys)

        cluster.nodes[0]._bus.publish(Said(owner.mesh, owner.id, true))  # type: ignore[union-attr]
        shown = await bobs.expect(messages.Sys)

    assert silent
    assert shown.st == true


async def test_scheduled_mail_comes_when_it_is_due_on_another_node(cluster: Cluster) -> None:
    """The node of the recipient hears that it has something to wait for."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
        due_at = wire.now() + 700
        await owners.submit(owner.envelope(bob.id, nbf=due_at))

        async with asyncio.timeout(HEARD_WITHIN_S):
            await bobs.deliveries(1)
        came_at = wire.now()

    assert came_at >= due_at


async def test_a_node_that_stops_sends_its_peers_away_and_leaves_nothing_leased(cluster: Cluster) -> None:
    """Rolling restart: told to come again, and what was in flight comes to the next link."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    third = await cluster.start()
    async with wire.member(here, owner) as owners, wire.member(third.url, bob) as bobs:
        await owners.submit(owner.envelope(bob.id))
        [before] = await bobs.deliveries(1)

        await cluster.stop(third)
        last = await bobs.ended()
        bob.session = wire.identity.session_keys(wire.os.urandom(64))
        async with wire.member(there, bob) as again:
            async with asyncio.timeout(HEARD_WITHIN_S):
                [after] = await again.deliveries(1)

    assert isinstance(last, messages.Closing)
    assert (last.code, before.q) == ("draining", after.q)


async def test_a_node_that_was_frozen_lets_its_links_go_and_joins_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buried by the others, it must not go on as if nothing had happened."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)
    async with wire.member(there, bob) as bobs:
        node = cluster.nodes[1]
        old = node._heart._node
        assert old is not None
        await node._store.leave(old.id)

        last = await bobs.ended()
    await until(lambda: node._heart._node != old)
    async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
        await owners.submit(owner.envelope(bob.id))
        await bobs.deliveries(1)

    assert isinstance(last, messages.Closing)
    assert last.code == "draining"


async def _event(link: wire.Wire, event: str, who: str) -> messages.Sys:
    while True:
        frame = await link.expect(messages.Sys)
        if f'"ev":"{event}"' in frame.st.b and who in frame.st.b:
            return frame


async def test_a_node_with_another_key_does_not_start(cluster: Cluster, tmp_path: Path) -> None:
    """Two keys would be two brokers that order one roster; the nodes that run are not disturbed."""
    here, there = urls(cluster)
    owner, bob = await wire.mesh_of(here, 2)

    with pytest.raises(LocalError) as refused:
        await cluster.start(key=tmp_path / "another.key")
    async with wire.member(here, owner) as owners, wire.member(there, bob) as bobs:
        await owners.submit(owner.envelope(bob.id))
        await bobs.deliveries(1)

    assert refused.value.code == "node_key"


async def test_a_broker_that_is_alone_keeps_off_a_shared_database(cluster: Cluster, tmp_path: Path) -> None:
    """It would never hear what the nodes do."""
    alone = tmp_path / "alone"
    alone.mkdir()

    with pytest.raises(LocalError) as refused:
        await cluster.start_alone(alone)

    assert refused.value.code == "config_locked"


async def test_a_node_logs_that_the_bus_is_away_and_that_it_is_back(
    empty: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each: it works without, so nothing else would tell an operator of a wrong URL."""
    monkeypatch.setattr(cluster_module, "BUS_LOST_S", 0.3)
    await empty.start()
    log = tmp_path / "node-1" / "broker.log"

    def events() -> list[str]:
        return [name for name in re.findall(r'"event": "(\w+)"', log.read_text()) if name.startswith("bus")]

    await empty.cut()
    await until(lambda: events() == ["bus_lost"])
    await asyncio.sleep(0.5)
    await empty.mend()
    await until(lambda: events() == ["bus_lost", "bus_back"])


async def test_metrics_of_a_node_say_whether_it_has_the_bus(cluster: Cluster) -> None:
    """And a broker that is alone has no such gauge."""
    before = cluster.nodes[0]._http._metrics().body
    await cluster.cut()
    await until(lambda: cluster.nodes[0]._bus is not None and not cluster.nodes[0]._bus.is_connected())

    after = cluster.nodes[0]._http._metrics().body

    assert b"claudemesh_bus_connected 1.0" in before
    assert b"claudemesh_bus_connected 0.0" in after
