"""What several nodes need of a store (docs/spec/cluster.md §2)."""

import asyncio
import itertools
from dataclasses import dataclass

import pytest

from claudemesh.broker.store.base import (
    FanOut,
    HeadRow,
    LinkId,
    Node,
    Outdated,
    Recipient,
    Store,
    Version,
)
from claudemesh.errors import LocalError
from claudemesh.types import BrokerId, ChannelId, Digest, MeshId, PeerId, UnixMillis
from tests.contract.test_store import ALICE, BOB, LATER, MESH, NOW, SESSION, notice, session, submission

KEY, OTHER_KEY = BrokerId("ab" * 32), BrokerId("cd" * 32)
CHANNEL = ChannelId("77" * 16)
LAPSE_MS = 100
LONG_LAPSE_MS = 1_000
"""Longer than a beat takes on a busy machine."""


@dataclass
class Nodes:
    """Two nodes, and a link of each."""

    first: Node
    second: Node

    @property
    def links(self) -> tuple[LinkId, LinkId]:
        return self.first.first_link, self.second.first_link


@pytest.fixture
async def nodes(store: Store) -> Nodes:
    return Nodes(await store.join(KEY, alone=False), await store.join(KEY, alone=False))


async def found(store: Store, mesh: MeshId = MESH) -> Version:
    """A mesh with one entry; returns its version."""
    await store.append_entries(mesh, -1, [b"e0"], NOW, actor=None, served=True)
    return (await store.mesh_ends([mesh]))[mesh].version


def head(seq: int, at: int = NOW) -> HeadRow:
    return HeadRow(seq, UnixMillis(at), b"head %d at %d" % (seq, at))


# Nodes


async def test_nodes_have_numbers_and_links_of_their_own(store: Store, nodes: Nodes) -> None:
    """Four billion links fit between the first links of two nodes."""
    again = await store.join(KEY, alone=False)

    firsts = sorted(node.first_link for node in (nodes.first, nodes.second, again))

    assert len({nodes.first.id, nodes.second.id, again.id}) == 3
    assert all(after - before >= 1 << 32 for before, after in itertools.pairwise(firsts))


async def test_a_node_with_another_key_does_not_join(store: Store, nodes: Nodes) -> None:
    """Two keys would sign two heads; once the nodes have ended, a new key may come."""
    with pytest.raises(LocalError) as refused:
        await store.join(OTHER_KEY, alone=False)
    await store.leave(nodes.first.id)
    await store.leave(nodes.second.id)

    await store.join(OTHER_KEY, alone=False)

    assert refused.value.code == "node_key"


async def test_a_broker_that_must_be_alone_is(store: Store) -> None:
    """A broker without a bus does not hear of what others do."""
    alone = await store.join(KEY, alone=True)
    with pytest.raises(LocalError) as second:
        await store.join(KEY, alone=False)
    await store.leave(alone.id)
    await store.join(KEY, alone=False)
    with pytest.raises(LocalError) as late:
        await store.join(KEY, alone=True)

    assert second.value.code == late.value.code == "config_locked"


async def test_a_node_that_is_silent_is_buried_by_another_one(store: Store, nodes: Nodes) -> None:
    """Its rows wait again, its sessions are gone, and it learns of that itself."""
    mine, other = nodes.links
    await store.set_presence([session(BOB, link=mine)])
    await store.lease(MESH, BOB, mine, NOW, 1)
    [stored] = await store.append([submission(lease=mine)], NOW)
    await asyncio.sleep(2 * LAPSE_MS / 1_000)

    beat = await store.beat(nodes.second.id, LAPSE_MS)
    rows = await store.lease(MESH, BOB, other, NOW, 10)

    assert stored.leased
    assert (beat.is_alive, beat.buried) == (True, 1)
    assert [row.q for row in rows] == [stored.q]
    assert await store.presence(MESH) == []
    assert await store.last_seen(MESH) == {BOB: NOW}
    assert not (await store.beat(nodes.first.id, LAPSE_MS)).is_alive


async def test_a_node_that_beats_is_not_buried(store: Store, nodes: Nodes) -> None:
    """Nor is anybody by one that only says that it lives."""
    await asyncio.sleep(1.2 * LONG_LAPSE_MS / 1_000)
    silent = await store.beat(nodes.second.id, None)
    await store.beat(nodes.first.id, None)

    beat = await store.beat(nodes.second.id, LONG_LAPSE_MS)

    assert (silent.buried, beat.buried) == (0, 0)
    assert (await store.beat(nodes.first.id, LONG_LAPSE_MS)).is_alive


async def test_a_buried_node_leases_nothing_that_is_withheld_from_others(store: Store, nodes: Nodes) -> None:
    """One that was frozen and goes on gets no valid lease from what it stores then."""
    mine, other = nodes.links
    await store.lease(MESH, BOB, mine, NOW, 1)
    await store.leave(nodes.first.id)

    [stored] = await store.append([submission(lease=mine)], NOW)
    rows = await store.lease(MESH, BOB, other, NOW, 10)

    assert [row.q for row in rows] == [stored.q]


async def test_a_node_that_leaves_frees_its_rows_at_once(store: Store, nodes: Nodes) -> None:
    """And only its own."""
    mine, other = nodes.links
    await store.lease(MESH, BOB, mine, NOW, 1)
    await store.lease(MESH, ALICE, other, NOW, 1)
    [freed, kept] = await store.append([submission(lease=mine), submission(to=ALICE, sender=BOB, lease=other)], NOW)

    await store.leave(nodes.first.id)
    await store.leave(nodes.first.id)

    assert await store.waiting([(MESH, BOB), (MESH, ALICE)], NOW) == [(MESH, BOB)]
    assert kept.leased
    assert [row.q for row in await store.lease(MESH, BOB, other, NOW, 10)] == [freed.q]


# Rosters


async def test_the_signed_head_is_kept_with_its_entries(store: Store) -> None:
    """One head for a length: that of the append that won."""
    await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=True, head=head(0))
    taken = await store.append_entries(MESH, 0, [b"e1", b"e2"], NOW, actor=None, served=True, head=head(2))
    late = await store.append_entries(MESH, 0, [b"x1", b"x2"], NOW, actor=None, served=True, head=head(2, NOW + 1))

    [end] = (await store.mesh_ends([MESH, MeshId("99" * 32)])).values()

    assert (taken, late) == (True, False)
    assert end.version.length == 3
    assert end.head == head(2)


async def test_a_head_is_renewed_once_for_all_nodes(store: Store) -> None:
    """Only for the length at which the roster ends, and only when what is kept is old."""
    await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=True, head=head(0))

    fresh = await store.renew_head(MESH, head(0, NOW + 5), UnixMillis(NOW))
    renewed = await store.renew_head(MESH, head(0, NOW + 60), UnixMillis(NOW + 1))
    second = await store.renew_head(MESH, head(0, NOW + 61), UnixMillis(NOW + 1))
    ahead = await store.renew_head(MESH, head(1, NOW + 99), UnixMillis(NOW + 99))

    assert fresh == head(0)
    assert renewed == second == ahead == head(0, NOW + 60)
    assert await store.renew_head(MeshId("99" * 32), head(0), NOW) is None


async def test_a_mesh_without_a_head_gets_one(store: Store) -> None:
    """Entries may have been stored without one."""
    await found(store)
    before = (await store.mesh_ends([MESH]))[MESH].head

    after = await store.renew_head(MESH, head(0), NOW)

    assert before is None
    assert after == head(0)


# Versions


async def test_each_change_of_subscriptions_is_a_new_version(store: Store) -> None:
    """Kept, forgotten, or gone with a mailbox or a channel."""
    await found(store)
    versions = [(await store.mesh_ends([MESH]))[MESH].version]
    for change in (
        lambda: store.subscribe(MESH, CHANNEL, BOB, True),
        lambda: store.subscribe(MESH, CHANNEL, BOB, None),
        lambda: store.subscribe(MESH, CHANNEL, BOB, False),
        lambda: store.drop_channel(MESH, BOB, CHANNEL, NOW),
        lambda: store.subscribe(MESH, CHANNEL, BOB, True),
        lambda: store.drop_mailbox(MESH, BOB, NOW, notice),
    ):
        await change()
        versions.append((await store.mesh_ends([MESH]))[MESH].version)

    assert len(set(versions)) == len(versions)
    assert {version.length for version in versions} == {1}


async def test_what_was_admitted_under_another_version_is_not_stored(store: Store) -> None:
    """Neither a message nor a post, and nobody else's call is touched."""
    version = await found(store)
    old = {MESH: version}
    post = FanOut(
        mesh=MESH,
        sender=ALICE,
        kind="post",
        channel=CHANNEL,
        id="01" * 16,
        priority="next",
        size=10,
        expires_at=LATER,
        attestation=Digest("d4" * 32),
        payload=b"{}",
        recipients=[Recipient(BOB)],
    )
    await store.append_entries(MESH, 0, [b"e1"], NOW, actor=None, served=True)

    results = await asyncio.gather(
        store.append([submission()], NOW, old),
        store.append([submission()], NOW),
        store.fan_out([post], NOW, old),
        return_exceptions=True,
    )
    stored = await store.append([submission()], NOW, {MESH: Version(2, version.wishes)})

    assert [type(one) for one in results] == [Outdated, list, Outdated]
    assert isinstance(results[0], Outdated)
    assert results[0].meshes == {MESH}
    assert len(stored) == 1
    assert (await store.mailbox_usage(MESH, BOB)).rows == 2


# Mailboxes


async def test_waiting_names_the_mailboxes_with_rows_that_nobody_has(store: Store, nodes: Nodes) -> None:
    """Neither what is leased, nor what is not due, nor what was acknowledged."""
    mine, _ = nodes.links
    later = UnixMillis(NOW + 1_000)
    both = [(MESH, BOB), (MESH, ALICE)]
    await store.lease(MESH, BOB, mine, NOW, 1)
    await store.append([submission(lease=mine), submission(to=ALICE, sender=BOB, not_before=later)], NOW)
    nothing = await store.waiting(both, NOW)

    due = await store.waiting(both, later)
    await store.release(mine)

    assert nothing == []
    assert due == [(MESH, ALICE)]
    assert sorted(await store.waiting(both, later)) == sorted(both)
    assert await store.waiting([], NOW) == []


# Presence


async def test_a_session_has_one_link_on_all_nodes(store: Store, nodes: Nodes) -> None:
    """The newer link gets what the older one had, and the older one's end does not end the session."""
    mine, other = nodes.links
    none = await store.take_over(session(BOB, link=mine))
    await store.lease(MESH, BOB, mine, NOW, 1)
    [stored] = await store.append([submission(lease=mine)], NOW)

    before = await store.take_over(session(BOB, link=other))
    rows = await store.lease(MESH, BOB, other, NOW, 10)
    await store.clear_presence(mine)

    assert (none, before) == (None, mine)
    assert [row.q for row in rows] == [stored.q]
    assert [row.link for row in await store.presence(MESH)] == [other]
    assert await store.take_over(session(BOB, link=other)) is None


async def test_a_status_is_that_of_the_link_that_has_the_session(store: Store, nodes: Nodes) -> None:
    """A node that lost a session to another one cannot change it."""
    mine, other = nodes.links
    one = session(BOB, link=mine)
    await store.take_over(one)

    await store.set_statuses([(mine, one.session, "working"), (other, one.session, "dnd")])

    assert [row.status for row in await store.presence(MESH)] == ["working"]


async def test_one_of_many_callers_announces_that_a_peer_came_or_went(store: Store) -> None:
    """Joins and leaves are told once in the whole cluster."""
    await store.take_over(session(BOB))
    joins = await asyncio.gather(*(store.arrive(MESH, BOB) for _ in range(5)))
    leaves = await asyncio.gather(*(store.depart(MESH, BOB) for _ in range(5)))

    assert (joins.count(True), leaves.count(True)) == (1, 1)
    assert not await store.depart(MESH, PeerId("99" * 32))


async def test_a_peer_without_a_session_is_absent_after_the_grace(store: Store, nodes: Nodes) -> None:
    """Whoever still has a session, or had one until lately, is not."""
    mine, _ = nodes.links
    await store.take_over(session(ALICE, number=1, link=mine))
    await store.take_over(session(BOB, number=2, link=mine))
    for peer in (ALICE, BOB):
        await store.arrive(MESH, peer)
    await store.end_session(MESH, BOB, session(BOB, number=2).session)

    early = await store.depart_absent(NOW, 10)
    gone = await asyncio.gather(*(store.depart_absent(UnixMillis(NOW + 1), 10) for _ in range(3)))

    assert early == []
    assert [one for some in gone for one in some] == [(MESH, BOB)]
    assert await store.arrive(MESH, BOB)


async def test_attestations_are_found_by_session(store: Store) -> None:
    """The one that ends last."""
    await store.put_attestation(MESH, BOB, Digest("01" * 32), LATER, b"new", session=SESSION)
    await store.put_attestation(MESH, BOB, Digest("02" * 32), NOW, b"old", session=SESSION)

    assert await store.session_attestations(MESH, [SESSION]) == {SESSION: b"new"}
    assert await store.session_attestations(MeshId("99" * 32), [SESSION]) == {}
