"""Attacks on membership: by the broker that orders the log, by members, and by both together."""

import os
from typing import Any

import msgspec

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import RosterConflict
from claudemesh.peer.events import HeadStale
from claudemesh.protocol import messages
from claudemesh.protocol.limits import DAY_MS, HOUR_MS, MINUTE_MS, STALE_HEAD_MS
from claudemesh.protocol.roster import Entry, Roster, sign_entry
from tests.attacks.forgeries import escalations, escalations_of_an_admin, verdict
from tests.attacks.hostile_link import HostileLink
from tests.attacks.hostile_store import View
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import Outcome, World

CHANNEL = "11" * 16


async def admit_a_ghost(world: World) -> Outcome:
    """A01: the broker appends an admission without the invite's signature, then with a made-up one."""
    bob, ghost = await world.victim("bob"), WireMember("ghost", world.clock)
    invite = (await world.invite()).invite_key().public
    entries = list(world.held.main.entries)
    ghost.roster = world.owner.roster
    body = ghost.roster.next_body("admit", world.clock(), by=invite, m=ghost.keys)
    unsigned = sign_entry(body, ghost.sign, ghost.user)
    garbage = Entry(unsigned.b, unsigned.s | {invite: "00" * 64})
    extra = Entry(unsigned.b, unsigned.s | {invite: unsigned.s[ghost.id]})

    for forged in (unsigned, garbage, extra):
        await world.show_forged(bob, forged)

    codes = {verdict(entries, forged) for forged in (unsigned, garbage, extra)}
    return Outcome(ghost.id in bob.roster().members, frozenset(codes))


async def splice_an_admission_of_another_mesh(world: World) -> Outcome:
    """A02: a perfectly valid admission, of another mesh of the same broker."""
    bob = await world.victim("bob")
    entries = list(world.held.main.entries)
    owner, stranger = WireMember("other owner", world.clock), WireMember("stranger", world.clock)
    other = View([owner.genesis(world.broker.key.public)])
    owner.follow(*other.entries)
    while other.seq < world.held.main.seq - 1:
        other.append(owner.entry("chan", chan=os.urandom(16).hex(), kind="open"))
        owner.follow(other.entries[-1])
    link = owner.new_link(world.broker.url)
    other.append(owner.invite(link))
    stranger.follow(*other.entries)
    admission = stranger.admission(link.invite_key())

    await world.show_forged(bob, admission)

    return Outcome(stranger.id in bob.roster().members, frozenset({verdict(entries, admission)}))


async def exceed_the_uses_of_a_link(world: World) -> Outcome:
    """A03: the broker stores an admission beyond `uses`, and says that there is room."""
    bob, extra = await world.victim("bob"), WireMember("extra", world.clock)
    link = await world.invite(uses=1)
    world.admit(WireMember("first", world.clock), link)
    await world.announce()
    entries = list(world.held.main.entries)
    extra.follow(*entries)
    admission = extra.admission(link.invite_key())

    await world.show_forged(bob, admission)

    return Outcome(extra.id in bob.roster().members, frozenset({verdict(entries, admission)}))


async def use_an_expired_or_revoked_link(world: World) -> Outcome:
    """A04: a day after its end, dated honestly and dated back; and a link that was revoked."""
    bob, late = await world.victim("bob"), WireMember("late", world.clock)
    expiring, revoked = await world.invite(ttl_ms=HOUR_MS), await world.invite()
    await world.extend(world.owner.entry("uninvite", inv=revoked.invite_key().public))
    world.clock.advance(DAY_MS)
    await world.extend(world.owner.entry("chan", chan=CHANNEL, kind="open"))
    entries = list(world.held.main.entries)
    late.follow(*entries)
    forged = [
        late.admission(expiring.invite_key()),
        late.admission(expiring.invite_key(), at=world.clock() - DAY_MS),
        late.admission(revoked.invite_key()),
    ]

    for admission in forged:
        await world.show_forged(bob, admission)

    codes = frozenset(verdict(entries, admission) for admission in forged)
    return Outcome(late.id in bob.roster().members, codes)


async def bring_an_expired_link_back(world: World) -> Outcome:
    """A04: nothing else has happened since the link expired, and its holder dates its admission back to before that."""
    bob, late = await world.victim("bob"), WireMember("late", world.clock)
    await world.extend(world.owner.entry("role", who=bob.id, role="admin"))
    expiring, before = await world.invite(ttl_ms=HOUR_MS), world.clock() + HOUR_MS - MINUTE_MS
    seq = world.held.main.seq
    world.clock.advance(DAY_MS)
    await world.chance(lambda: world.held.main.seq > seq, 5.0)
    entries = list(world.held.main.entries)
    late.follow(*entries)
    admission = late.admission(expiring.invite_key(), at=before)

    await world.show_forged(bob, admission)

    return Outcome(late.id in bob.roster().members, frozenset({verdict(entries, admission)}))


async def keep_a_peer_stale(world: World) -> Outcome:
    """A08: the broker shows one peer an old head on every link, and nobody newer writes to it; success is silence."""
    bob = await world.victim("bob")
    old = world.held.main.signed_head(world.broker.key, world.clock())

    def show_the_old_head(_: HostileLink, frame: messages.BrokerMessage) -> tuple[messages.BrokerMessage, ...]:
        signs = isinstance(frame, messages.Log | messages.HelloAck)
        return (msgspec.structs.replace(frame, sth=old),) if signs else (frame,)

    def is_warned() -> bool:
        return any(isinstance(event, HeadStale) for event in bob.events)

    world.broker.lies.outgoing = show_the_old_head
    world.clock.advance(STALE_HEAD_MS + MINUTE_MS)
    await world.chance(is_warned, 8.0)

    return Outcome(not is_warned(), frozenset())


async def sell_ones_own_mesh(world: World) -> Outcome:
    """A05: the broker answers a real link with a mesh that it made, for one invite that it cannot sign."""
    link = await world.invite()
    impostor = WireMember("impostor", world.clock)
    fake = world.broker.hold([impostor.genesis(world.broker.key.public)])
    impostor.follow(*fake.main.entries)
    unsigned = impostor.entry("invite", inv=link.invite_key().public, role="member", uses=9, exp=world.clock() + DAY_MS)
    grant = verdict(fake.main.entries, unsigned)
    fake.main.force(unsigned)

    def substitute(wire: HostileLink, frame: messages.BrokerMessage) -> tuple[messages.BrokerMessage, ...]:
        if not isinstance(frame, messages.Claimed):
            return (frame,)
        wire.held = fake
        return (messages.Claimed(mesh=fake.main.mesh, seq=fake.main.seq, state="open"),)

    world.broker.lies.outgoing = substitute
    refusal = await world.try_to_join("newcomer", link.text())
    joined = any(isinstance(frame, messages.Append) for _, frame in world.broker.received)
    return Outcome(joined or refusal == "", frozenset({refusal, grant}))


async def sell_ones_own_mesh_and_keep_the_name(world: World) -> Outcome:
    """A05: the broker names the right mesh, and serves the log of its own."""
    link = await world.invite()
    impostor = WireMember("impostor", world.clock)
    fake = world.broker.hold([impostor.genesis(world.broker.key.public)])
    true_mesh = world.owner.mesh

    def substitute(wire: HostileLink, frame: messages.BrokerMessage) -> tuple[messages.BrokerMessage, ...]:
        if isinstance(frame, messages.Claimed):
            wire.held = fake
            return (messages.Claimed(mesh=true_mesh, seq=fake.main.seq, state="open"),)
        return (frame,)

    world.broker.lies.outgoing = substitute
    refusal = await world.try_to_join("newcomer", link.text())
    joined = any(isinstance(frame, messages.Append) for _, frame in world.broker.received)
    return Outcome(joined or refusal == "", frozenset({refusal}))


async def lose_the_tail_of_the_log(world: World) -> Outcome:
    """A06: a broker restored from an old backup; the returning peer gives back what is missing."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.extend(world.owner.entry("revoke", who=carol.id, why="removed"))
    await bob.reaches(world.held.main.seq)
    newest = world.held.main.head

    world.held.main = world.held.main.copy(world.held.main.seq)
    await world.broker.drop_links(bob.id)
    await world.until(lambda: world.held.main.head == newest or bob.freeze, "bob heals the broker or freezes")

    hidden = world.held.main.head != newest or bob.roster().is_active(carol.id)
    return Outcome(hidden, frozenset({bob.freeze} if bob.freeze else ()))


async def roll_the_log_back(world: World) -> Outcome:
    """A06: the broker hides a revocation from a returning peer, and refuses to be healed."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.extend(world.owner.entry("revoke", who=carol.id, why="removed"))
    await bob.reaches(world.held.main.seq)

    world.broker.refuse_appends = True
    world.held.main = world.held.main.copy(world.held.main.seq)
    await world.broker.drop_links(bob.id)
    await world.settles(bob)

    believed = bob.roster().is_active(carol.id) or bob.freeze is None
    return Outcome(believed, frozenset({bob.freeze or ""}))


async def rewrite_the_last_entry(world: World) -> Outcome:
    """A06: where the peer has one entry, the broker now signs another."""
    bob, carol = await world.victim("bob"), world.member("carol")
    before = world.held.main.copy()
    await world.extend(world.owner.entry("revoke", who=carol.id, why="removed"))
    await bob.reaches(world.held.main.seq)

    before.append(carol.entry_on(before.roster, "chan", chan=CHANNEL, kind="open"))
    world.held.main = before
    await world.broker.drop_links(bob.id)
    await world.settles(bob)

    return Outcome(bob.freeze is None, frozenset({bob.freeze or ""}))


async def fork_two_peers(world: World) -> Outcome:
    """A07: two histories; success is that a message crosses between them and sending goes on."""
    bob, carol = await world.victim("bob"), await world.victim("carol")
    insider = world.member("insider")
    await world.announce()
    world.held.views[carol.id] = world.held.main.copy()
    world.broker.hold_mail = True
    await world.extend(world.owner.entry("revoke", who=insider.id, why="stolen"))
    other = world.held.views[carol.id]
    other.append(insider.entry_on(other.roster, "chan", chan=CHANNEL, kind="group"))
    await world.announce()
    await bob.shows(world.held.main.seq)
    await carol.shows(other.seq)

    await bob.peer.send(carol.id, "from branch one")
    await carol.peer.send(bob.id, "from branch two")
    await bob.settled()
    await carol.settled()
    await world.carry(bob, carol)
    await world.carry(carol, bob)
    await world.settles(bob)
    await world.settles(carol)

    went_on = await _can_send(bob, carol) or await _can_send(carol, bob)
    crossed = "from branch one" in carol.texts or "from branch two" in bob.texts
    return Outcome(went_on or crossed, frozenset({bob.freeze or "", carol.freeze or ""}))


async def withhold_a_revocation(world: World) -> Outcome:
    """A08: bob is shown an old log, until somebody newer writes to him."""
    bob, alice = await world.victim("bob"), world.owner
    carol = world.member("carol")
    await world.announce()
    await bob.reaches(world.held.main.seq)
    world.held.views[bob.id] = world.held.main.copy()
    await world.extend(alice.entry("revoke", who=carol.id, why="removed"))
    world.show_head(alice)

    await world.deliver(bob, alice.write(bob.id, bob.kid, "hello"), checked=False)
    await world.settles(bob)

    return Outcome(bob.freeze is None, frozenset({bob.freeze or ""}))


async def escalate(world: World, admin: bool = False) -> Outcome:
    """A25: a member, then an admin, with a broker that stores whatever it sends."""
    victim, bob = await world.victim("victim"), world.member("bob")
    if admin:
        await world.extend(world.owner.entry("role", who=bob.id, role="admin"))
        bob.follow(world.held.main.entries[-1])
    else:
        await world.announce()
    before = victim_state(victim)
    forged = (escalations_of_an_admin if admin else escalations)(world.owner, bob)
    codes = {verdict(world.held.main.entries, entry) for entry in forged}

    for entry in forged:
        await world.show_forged(victim, entry)

    return Outcome(victim_state(victim) != before, frozenset(codes))


async def use_the_links_of_a_revoked_admin(world: World) -> Outcome:
    """A26: an admin leaves invites behind, and joins again through them with the broker's help."""
    victim, eve = await world.victim("victim"), world.member("eve")
    await world.extend(world.owner.entry("role", who=eve.id, role="admin"))
    eve.follow(world.held.main.entries[-1])
    link = eve.new_link(world.broker.url)
    await world.extend(eve.invite(link, uses=5))
    await world.extend(world.owner.entry("revoke", who=eve.id, why="removed"))
    entries = list(world.held.main.entries)
    again = WireMember("eve again", world.clock)
    again.follow(*entries)
    admission = again.admission(link.invite_key())
    eve.roster = world.owner.roster
    promoted = eve.entry("role", who=again.id, role="admin")

    await world.show_forged(victim, admission)
    await world.show_forged(victim, promoted)
    refusal = await world.try_to_join("eve-once-more", link.text())

    codes = frozenset({verdict(entries, admission), verdict(entries, promoted), refusal})
    return Outcome(victim.roster().is_active(again.id) or refusal == "", codes)


async def steal_the_owners_device(world: World, recovery: SigningKey) -> Outcome:
    """A33: the thief promotes a friend and spreads links; the recovery words end all of it."""
    bob, friend = await world.victim("bob"), world.member("friend")
    thief = world.owner
    await world.extend(thief.entry("role", who=friend.id, role="admin"))
    link = await world.invite(uses=5)
    heir = WireMember("heir", world.clock)
    heir.follow(*world.held.main.entries)
    body = heir.roster.next_body("recover", world.clock(), by=recovery.public, m=heir.keys)
    await world.extend(sign_entry(body, recovery, heir.sign))
    await bob.reaches(world.held.main.seq)
    entries = list(world.held.main.entries)
    late = WireMember("late", world.clock)
    late.follow(*entries)

    await world.deliver(bob, thief.write(bob.id, bob.kid, "obey me"))
    admission = late.admission(link.invite_key())
    await world.show_forged(bob, admission)
    roster = bob.roster()

    gone = not (roster.is_active(thief.id) or roster.is_active(friend.id) or roster.is_active(late.id))
    rightful = roster.role_of(heir.id) == "owner" and roster.is_active(bob.id)
    codes = bob.codes | {verdict(entries, admission)}
    return Outcome(not (gone and rightful) or "obey me" in bob.texts, frozenset(codes))


async def date_an_entry_far_ahead(world: World) -> Outcome:
    """A41: a member moves the log's clock by a year, and the broker lets it."""
    bob, mallory = await world.victim("bob"), world.member("mallory")
    await world.announce()
    await bob.reaches(world.held.main.seq)
    entry = mallory.entry("chan", at=world.clock() + 365 * DAY_MS, chan=CHANNEL, kind="group")
    code = verdict(world.held.main.entries, entry, world.clock())

    await world.show_forged(bob, entry)

    return Outcome(CHANNEL in bob.roster().channels, frozenset({code}))


async def make_a_back_door_of_device_links(world: World) -> Outcome:
    """A42: more uses than allowed; and a device that outlives its user."""
    bob, mallory = await world.victim("bob"), world.member("mallory")
    wide = mallory.new_link(world.broker.url)
    too_many = mallory.invite(wide, uses=6, user=mallory.user.public)
    codes = {verdict(world.held.main.entries, too_many)}
    await world.show_forged(bob, too_many)

    link = mallory.new_link(world.broker.url)
    await world.extend(mallory.invite(link, uses=5, user=mallory.user.public))
    device, second = WireMember("device", world.clock), WireMember("second", world.clock)
    device.user = mallory.user
    world.admit(device, link, by_user=False)
    mallory.follow(*world.held.main.entries[mallory.roster.seq + 1 :])
    another = mallory.new_link(world.broker.url)
    codes.add(verdict(world.held.main.entries, mallory.invite(another, uses=1, user=mallory.user.public)))
    foreign = second.admission_on(world.held.main.roster, link.invite_key(), by_user=False)
    codes.add(verdict(world.held.main.entries, foreign))
    await world.extend(world.owner.entry("revoke", who=mallory.user.public, why="removed"))
    codes.add(verdict(world.held.main.entries, device.admission_on(world.held.main.roster, link.invite_key(), False)))
    await bob.reaches(world.held.main.seq)

    roster = bob.roster()
    survived = roster.is_active(device.id) or roster.is_active(mallory.id) or second.id in roster.members
    return Outcome(survived, frozenset(codes))


async def replace_the_brokers_key(world: World) -> Outcome:
    """A46: the same host with another key, and no word of the owner."""
    bob = await world.victim("bob")
    dials = len(world.broker.links)
    world.broker.key = primitives.signing_key(os.urandom(32))

    await world.broker.drop_links(bob.id)
    await world.until(lambda: len(world.broker.links) >= dials + 3, "bob dials again and again")

    spoken = [link for link in world.broker.links[dials:] if link.heard]
    return Outcome(bool(spoken), frozenset(bob.link_errors[-2:]))


async def sign_heads_with_another_key(world: World) -> Outcome:
    """A46: the challenge is honest, but the heads are signed by a key that the owner never named."""
    bob, usurper = await world.victim("bob"), primitives.signing_key(os.urandom(32))
    carol = world.member("carol")
    view = world.held.main
    sth = view.signed_head(usurper, world.clock())
    link = await world.broker.connected(bob.id)

    await link.emit(messages.Log(seq=view.seq - 1, entries=view.entries[-2:], sth=sth))
    await world.until(lambda: link.closed or carol.id in bob.roster().members, "bob drops the link or believes")
    stored = bob.rows("SELECT statement FROM heads")[0][0]

    return Outcome(usurper.public.encode() in bytes(stored), frozenset(bob.link_errors[-1:]))


async def move_to_a_new_key(world: World) -> None:
    """A46, control: the owner names the broker's new key."""
    new = primitives.signing_key(os.urandom(32))
    await world.extend(world.owner.entry("broker", bk=new.public))
    world.broker.key = new


def proves_a_contradiction(proof: bytes, broker: str) -> bool:
    """Whether the proof convinces somebody who holds nothing but the broker's public key: two signed heads
    of one mesh that cannot both be true for one log, or one that the broker has to answer with entries."""
    bodies = [
        statements.open_statement(statement, "sth", broker)
        for statement in msgspec.json.decode(proof, type=list[Statement])
    ]
    heads = {(body["seq"], body["head"]) for body in bodies}
    return len({body["mesh"] for body in bodies}) == 1 and len(heads) >= 2


async def _can_send(sender: Any, recipient: Any) -> bool:
    try:
        await sender.peer.send(recipient.id, "after the fork")
    except RosterConflict as error:
        return error.code != "frozen"
    return True


def victim_state(victim: Any) -> dict[str, str]:
    """Whatever an escalation could change: every peer's role, the broker and the invites."""
    roster: Roster = victim.roster()
    state = {peer: str(roster.role_of(peer)) for peer in roster.members}
    return state | {"broker": str(roster.broker), "invites": ",".join(sorted(roster.invites))}
