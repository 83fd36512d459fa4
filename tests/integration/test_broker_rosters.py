"""Rosters through a real broker: founding, joining, appending, revoking, moving (docs/spec/broker.md §3)."""

import asyncio
import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import statements
from claudemesh.errors import Refused, RosterRefused
from claudemesh.protocol import heads, limits, messages
from claudemesh.protocol.link import Founder, LinkHolder
from claudemesh.protocol.roster import Entry, Roster, sign_entry
from claudemesh.types import UnixMillis
from tests import wire_client as wire
from tests.brokers import serving


async def upload(url: str, entries: list[Entry]) -> int:
    """Upload a log as a founder does, and go on where the broker says that its copy ends."""
    async with wire.dial(url, Founder()) as link:
        appended = await link.append(entries[0])
        rest = entries[appended.seq + 1 :]
        if rest:
            appended = await link.append(*rest)
        return appended.seq


async def log_of(url: str, one: wire.Identity) -> list[Entry]:
    """The whole log, as a member fetches it."""
    async with wire.member(url, one) as link:
        entries: list[Entry] = []
        while True:
            log = await link.request(messages.Log, messages.Sync, seq=len(entries))
            entries += log.entries
            if not log.more:
                return entries


async def refusal_of_hello(url: str, one: wire.Identity) -> str:
    with pytest.raises(Refused) as refused:
        async with wire.member(url, one):
            pass
    return refused.value.code


async def test_head_after_an_append_is_signed_for_exactly_that_roster(broker: Broker) -> None:
    [owner] = await wire.mesh_of(broker.url, 1)
    invite = wire.random_key()
    async with wire.member(broker.url, owner) as link:
        entry = owner.invite(invite)
        appended = await link.append(entry)
        owner.roster.apply(entry)

    assert appended.sth is not None
    head = heads.open_head(appended.sth, owner.roster)
    assert (head.seq, head.head) == (owner.roster.seq, owner.roster.head)


async def test_one_link_admits_as_many_as_it_allows_while_the_owner_is_away(broker: Broker) -> None:
    """Three join with one link of three uses; the fourth is told that it is used up."""
    owner = wire.Identity()
    mesh = await wire.found(broker.url, owner)
    invite = await wire.issue(broker.url, owner, uses=3)
    for _ in range(3):
        await wire.join(broker.url, wire.Identity(), mesh, invite)

    late = wire.Identity()
    async with wire.dial(broker.url, LinkHolder(invite, mesh[:32])) as link:
        claimed = await link.expect(messages.Claimed)
    with pytest.raises(Refused) as refused:
        await wire.join(broker.url, late, mesh, invite)

    assert claimed.state == "exhausted"
    assert (refused.value.code, refused.value.detail) == ("invalid", "denied invite_exhausted")


async def test_joiners_at_once_are_all_ordered(tmp_path: Path) -> None:
    """Whoever loses the compare-and-swap syncs and tries again."""
    async with serving(tmp_path, limits={"claims_per_minute_per_invite": 1_000}) as broker:
        owner = wire.Identity()
        mesh = await wire.found(broker.url, owner)
        invite = await wire.issue(broker.url, owner, uses=20)
        newcomers = [wire.Identity() for _ in range(20)]

        await asyncio.gather(*(wire.join(broker.url, one, mesh, invite) for one in newcomers))
        async with wire.member(broker.url, owner):
            pass

    assert all(owner.roster.is_active(one.id) for one in newcomers)


async def test_expired_link_cannot_be_revived_by_back_dating(broker: Broker) -> None:
    """Nothing happened in the mesh since: only the broker's clock can tell that the date is a lie."""
    owner, thief = wire.Identity(), wire.Identity()
    mesh = await wire.found(broker.url, owner)
    invite = await wire.issue(broker.url, owner, expires_in_ms=200)
    await asyncio.sleep(0.3)

    async with wire.dial(broker.url, LinkHolder(invite, mesh[:32])) as link:
        claimed = await link.expect(messages.Claimed)
        log = await link.request(messages.Log, messages.Sync, seq=0)
        thief.follow(log.entries)
        with pytest.raises(Refused) as honest:
            await link.append(thief.admission(invite))
        with pytest.raises(Refused) as backdated:
            await link.append(thief.admission(invite, at=wire.now() - 6 * 60_000))

    assert claimed.state == "expired"
    assert honest.value.detail == "denied invite_expired"
    assert backdated.value.code == "invalid"


async def test_claimant_appends_nothing_but_its_own_admission(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    invite = await wire.issue(broker.url, owner)

    async with wire.dial(broker.url, LinkHolder(invite, owner.mesh[:32])) as link:
        with pytest.raises(Refused) as refused:
            await link.append(owner.entry("revoke", who=other.id, why="removed"))

    assert refused.value.code == "invalid"


async def test_claim_for_an_unknown_mesh_or_invite_is_refused(broker: Broker) -> None:
    owner = wire.Identity()
    mesh = await wire.found(broker.url, owner)

    answers = []
    for prefix in (os.urandom(16).hex(), mesh[:32]):
        with pytest.raises(Refused) as refused:
            async with wire.dial(broker.url, LinkHolder(wire.random_key(), prefix)):
                pass
        answers.append((refused.value.code, refused.value.detail))

    assert answers == [("unknown_mesh", ""), ("invalid", "no_grant")]


async def test_entry_for_another_head_loses_the_compare_and_swap(broker: Broker) -> None:
    [owner] = await wire.mesh_of(broker.url, 1)
    first, second = owner.invite(wire.random_key()), owner.invite(wire.random_key())

    async with wire.member(broker.url, owner) as link:
        await link.append(first)
        with pytest.raises(Refused) as refused:
            await link.append(second)

    assert refused.value.code == "cas"
    assert refused.value.retryable


async def test_entries_of_one_append_are_taken_together_or_not_at_all(broker: Broker) -> None:
    """The first is valid, the second is not: the roster stays as it was, in memory and in the store."""
    owner, other = await wire.mesh_of(broker.url, 2)
    invite = wire.random_key()
    valid = owner.invite(invite)
    copy = wire.Identity()
    copy.follow(await log_of(broker.url, owner))
    copy.roster.apply(valid)
    body = copy.roster.next_body("revoke", wire.now(), by=other.id, who=owner.id, why="removed")
    forbidden = sign_entry(body, other.sign)

    async with wire.member(broker.url, owner) as link:
        with pytest.raises(Refused) as refused:
            await link.append(valid, forbidden)
        await link.append(valid)

    assert refused.value.code == "invalid"
    assert refused.value.detail.startswith("denied")


async def test_a_refused_append_leaves_no_trace_on_those_that_follow(broker: Broker) -> None:
    """What half of a refused upload did is on none of the copies that later uploads are tried on."""
    owner, other = await wire.mesh_of(broker.url, 2)
    upload = wire.Identity()
    upload.follow(await log_of(broker.url, owner))

    async with wire.member(broker.url, owner) as link:
        for _ in range(3):
            await link.append(*(_drafted(upload, owner, "invite") for _ in range(2)))
            ahead = wire.Identity()
            ahead.follow(await log_of(broker.url, other))
            with pytest.raises(Refused):
                await link.append(_drafted(ahead, owner, "invite"), _drafted(ahead, other, "revoke", who=owner.id))
            single = _drafted(upload, owner, "invite")
            await link.append(single)
    log = await log_of(broker.url, other)

    assert log[-1] == single
    assert Roster.restore(log).head == upload.roster.head


def _drafted(view: wire.Identity, by: wire.Identity, op: str, **fields: Any) -> Entry:
    """The next entry of `by`, applied to `view` unless the rules deny it."""
    if op == "invite":
        invite = wire.random_key()
        fields = {"inv": invite.public, "role": "member", "uses": 1, "exp": wire.now() + limits.DAY_MS}
        signers = [by.sign, invite]
    else:
        fields, signers = fields | {"why": "removed"}, [by.sign]
    entry = sign_entry(view.roster.next_body(op, wire.now(), by=by.id, **fields), *signers)
    with contextlib.suppress(RosterRefused):
        view.roster.apply(entry)
    return entry


async def test_new_entries_are_announced_to_every_open_link(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, other) as listening, wire.member(broker.url, owner) as link:
        entry = owner.invite(wire.random_key())
        await link.append(entry)
        log = await listening.expect(messages.Log, rid=None)

    assert log.entries == [entry]
    other.follow(log.entries)
    assert log.sth is not None
    assert heads.open_head(log.sth, other.roster).head == other.roster.head


async def test_revoked_peer_loses_its_links_and_its_mailbox_and_the_senders_are_told(broker: Broker) -> None:
    owner, victim, friend = await wire.mesh_of(broker.url, 3)
    async with wire.member(broker.url, friend) as sending:
        letter = friend.envelope(victim.id)
        await sending.submit(letter)
        async with wire.member(broker.url, victim) as link, wire.member(broker.url, owner) as ruling:
            await link.deliveries(1)
            await ruling.append(owner.entry("revoke", who=victim.id, why="stolen"))
            closing = await link.ended()
        [notice] = await sending.deliveries(1)

    assert closing is not None
    assert closing.code == "revoked"
    assert notice.st is not None
    body = statements.open_statement(notice.st, "sys", broker.id)
    assert (body["ev"], body["id"], body["who"]) == ("revoked", letter.id, victim.id)
    assert await refusal_of_hello(broker.url, victim) == "revoked"


async def test_recovery_ends_the_links_of_the_thief(broker: Broker) -> None:
    """The recovery key removes every owner and admin at once."""
    owner, heir = wire.Identity(), wire.Identity()
    recovery = wire.random_key()
    async with wire.dial(broker.url, Founder()) as link:
        genesis = owner.genesis(broker.id, recovery=recovery.public)
        await link.append(genesis)
    owner.follow([genesis])
    heir.follow([genesis])
    keys = {"sign": heir.sign.public, "box": heir.box.public, "user": heir.user.public}
    body = heir.roster.next_body("recover", wire.now(), by=recovery.public, m=keys)

    async with wire.member(broker.url, owner) as thief:
        assert await upload(broker.url, [genesis, sign_entry(body, recovery, heir.sign)]) == 1
        closing = await thief.ended()

    assert closing is not None
    assert closing.code == "revoked"


async def test_stranger_to_the_mesh_cannot_open_a_link(broker: Broker) -> None:
    owner, outsider = wire.Identity(), wire.Identity()
    await wire.found(broker.url, owner)
    outsider.roster = owner.roster

    assert await refusal_of_hello(broker.url, outsider) == "unknown_peer"


async def test_mesh_that_names_another_broker_is_stored_but_not_served(broker: Broker) -> None:
    owner = wire.Identity()
    genesis = owner.genesis(wire.random_key().public)  # type: ignore[arg-type]
    owner.follow([genesis])

    assert await upload(broker.url, [genesis]) == 0
    assert await refusal_of_hello(broker.url, owner) == "unknown_mesh"


async def test_mesh_moves_to_another_broker_with_its_whole_log(tmp_path: Path) -> None:
    """The old broker sends everybody on, after what waited for them; the new one serves the same log."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    async with serving(tmp_path / "old") as old, serving(tmp_path / "new") as new:
        owner, other = await wire.mesh_of(old.url, 2)
        [genesis, *_] = await log_of(old.url, owner)
        async with wire.member(old.url, owner) as link:
            await link.submit(owner.envelope(other.id))
            move = owner.entry("broker", bk=new.id, url=new.url)
            await link.append(move)
            left = await link.ended()
        async with wire.member(old.url, other) as link:
            [waiting] = await link.deliveries(1)
            await link.send(messages.Ack(q=[waiting.q]))
            sent_on = await link.ended()
        log = [genesis, *await log_of_old(old.url, owner)]
        assert await upload(new.url, log) == len(log) - 1
        async with wire.member(new.url, owner) as sending, wire.member(new.url, other) as receiving:
            await sending.submit(owner.envelope(other.id))
            await receiving.deliveries(1)

    for closing in (left, sent_on):
        assert isinstance(closing, messages.Closing)
        assert (closing.code, closing.url) == ("moved", new.url)


async def log_of_old(url: str, one: wire.Identity) -> list[Entry]:
    """The log from a broker that the mesh has left: it still answers a hello with what is new to the peer."""
    knows_little = replace(wire.hello(one), roster_seq=0, roster_head=one.roster.digest_at(0))
    async with wire.dial(url, knows_little) as link:
        return (await link.expect(messages.Log)).entries


async def test_genesis_that_is_held_already_says_where_the_log_ends(broker: Broker) -> None:
    """A founder whose answer was lost goes on from there."""
    owner, _ = await wire.mesh_of(broker.url, 2)
    log = await log_of(broker.url, owner)

    assert await upload(broker.url, log[:1]) == len(log) - 1


async def test_log_of_the_wrong_hash_or_order_is_not_stored(broker: Broker) -> None:
    owner = wire.Identity()
    genesis = owner.genesis(broker.id)
    forged = Entry(genesis.b, {owner.sign.public: "0" * 128})

    with pytest.raises(Refused) as refused:
        await upload(broker.url, [forged])

    owner.follow([genesis])
    assert refused.value.detail.startswith("bad_sig")
    assert await refusal_of_hello(broker.url, owner) == "unknown_mesh"


async def test_closed_broker_creates_no_mesh(tmp_path: Path) -> None:
    async with serving(tmp_path, mesh_creation="closed") as broker:
        with pytest.raises(Refused) as refused:
            await wire.found(broker.url, wire.Identity())

    assert refused.value.code == "mesh_creation_closed"


async def test_roster_that_is_ahead_of_the_broker_is_healed_by_a_member(tmp_path: Path) -> None:
    """A broker restored from an old backup gets the missing entries back from the first peer that has them."""
    (tmp_path / "lost").mkdir()
    async with serving(tmp_path) as broker:
        owner, other, third = await wire.mesh_of(broker.url, 3)
        log = await log_of(broker.url, owner)
    (tmp_path / "lost" / "broker.db.key").write_bytes((tmp_path / "broker.db.key").read_bytes())
    (tmp_path / "lost" / "broker.db.key").chmod(0o600)
    async with serving(tmp_path / "lost") as restored:
        await upload(restored.url, log[:2])
        assert await refusal_of_hello(restored.url, other) == "unknown_peer"
        async with wire.dial(restored.url, wire.hello(owner)) as link:
            assert link.opened is not None
            short = statements.open_statement(link.opened.sth, "sth")["seq"]
            await link.append(*log[2:])
        async with wire.member(restored.url, third), wire.member(restored.url, other):
            pass

    assert short == 1


async def test_entry_dated_in_the_future_is_refused(broker: Broker) -> None:
    [owner] = await wire.mesh_of(broker.url, 1)
    async with wire.member(broker.url, owner) as link:
        entry = owner.entry("broker", at=UnixMillis(wire.now() + 6 * 60_000), bk=broker.id)
        with pytest.raises(Refused) as refused:
            await link.append(entry)

    assert refused.value.detail == "future_entry"


async def test_appends_are_limited_per_peer(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"appends_per_minute": 2}) as broker:
        owner = wire.Identity()
        await wire.found(broker.url, owner)
        async with wire.member(broker.url, owner) as link:
            for _ in range(2):
                entry = owner.invite(wire.random_key())
                await link.append(entry)
                owner.follow([entry])
            with pytest.raises(Refused) as refused:
                await link.append(owner.invite(wire.random_key()))

    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_ms is not None


async def test_long_log_comes_in_pages(broker: Broker) -> None:
    """More entries than one frame holds: every page but the last says that there are more, only the last is signed."""
    owner = wire.Identity()
    genesis = owner.genesis(broker.id)
    owner.follow([genesis])
    log = [genesis]
    for _ in range(450):
        entry = owner.entry("broker", bk=broker.id)
        owner.follow([entry])
        log.append(entry)
    async with wire.dial(broker.url, Founder()) as link:
        await link.append(log[0])
        for start in range(1, len(log), 200):
            await link.append(*log[start : start + 200])

    async with wire.member(broker.url, owner) as link:
        pages = [await link.request(messages.Log, messages.Sync, seq=0)]
        while pages[-1].more:
            following = pages[-1].seq + len(pages[-1].entries)
            pages.append(await link.request(messages.Log, messages.Sync, seq=following))

    assert [entry for page in pages for entry in page.entries] == log
    assert [page.sth is None for page in pages] == [page.more for page in pages]
    assert len(pages) == 3
