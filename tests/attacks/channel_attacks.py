"""Attacks on channels: epochs, slots, posts, names and histories that no honest member makes."""

import os
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.epoch_record import open_record
from claudemesh.errors import ClaudemeshError
from claudemesh.peer import channel_contents, contents
from claudemesh.peer.channel_contents import Evidenced, Listing
from claudemesh.peer.contents import Nack
from claudemesh.peer.repairing import topic_of
from claudemesh.protocol import messages
from claudemesh.protocol.epoch_handover import share_history
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.limits import CHANNELS_PER_PEER
from claudemesh.protocol.messages import Delivery, Post, Send
from claudemesh.protocol.roster import GENERAL, SPACE
from claudemesh.types import ChannelId, Digest, MessageId, PeerId, UnixMillis
from tests.attacks import wire_channels
from tests.attacks.hostile_channels import ChannelCarrier
from tests.attacks.wire_channels import WireEpoch, WirePost
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import Outcome, Victim, World


class Stage:
    """A world in which channels work, and everybody in it who is played by hand."""

    def __init__(self, world: World, *hands: WireMember) -> None:
        self.world = world
        self.carrier = ChannelCarrier(world.broker)
        self.hands = list(hands)

    @classmethod
    async def set(cls, world: World, *hands: str) -> "Stage":
        """Members that are played by hand join the owner."""
        stage = cls(world, world.owner)
        for name in hands:
            stage.hands.append(world.member(name))
        await stage.announce()
        return stage

    async def announce(self) -> None:
        """Everybody gets the log as it is."""
        entries = self.world.held.main.entries
        for hand in self.hands:
            if self.world.held.main.roster.is_active(hand.id):
                hand.follow(*entries[hand.roster.seq + 1 :])
                self.world.show_head(hand)
        await self.world.announce()

    async def victim(self, name: str) -> Victim:
        victim = await self.world.victim(name)
        await self.announce()
        return victim

    async def extend(self, *entries: Any) -> None:
        """Append entries as an honest broker does, and let everybody follow."""
        await self.world.extend(*entries)
        await self.announce()

    def boxes(self, *left_out: PeerId) -> dict[PeerId, str]:
        """The box keys of all active members."""
        every = {victim.id: victim.kid for victim in self.world.victims} | {
            hand.id: hand.box.public for hand in self.hands
        }
        active = self.world.held.main.roster.is_active
        return {peer: box for peer, box in every.items() if active(peer) and peer not in left_out}

    async def give(self, epoch: WireEpoch, to: Victim, slot: str | None = None, checked: bool = True) -> None:
        """Deliver an epoch; with `checked`, wait until the victim has said that it is done with it."""
        await self.push(to, epoch.delivery(to.id, slot), attestations=[epoch.attestation], checked=checked)

    async def hand_over(self, post: WirePost, to: Victim, checked: bool = True) -> None:
        """Deliver a post; with `checked`, wait until the victim has said that it is done with it."""
        await self.push(to, post.delivery(), attestations=[post.attestation], checked=checked)

    async def push(
        self, to: Victim, *deliveries: Delivery, attestations: Iterable[Any] = (), checked: bool = True
    ) -> None:
        """Deliver anything. What names an attestation that was refused is never acknowledged."""
        numbers = await self.carrier.push(to.id, *deliveries, attestations=list(attestations))
        if checked:
            await self.world.broker.acknowledged(to.id, *numbers)

    async def general(self, *readers: Victim, author: WireMember | None = None) -> WireEpoch:
        """An honest epoch of the owner that these victims hold."""
        epoch = wire_channels.make(author or self.world.owner, self.boxes())
        for reader in readers:
            await self.give(epoch, reader)
        return epoch

    async def says(self, speaker: Victim, text: str, channel: str = "#general") -> Post:
        """A victim posts; what reaches the broker."""
        submitted = await speaker.peer.send(channel, text)
        posts = await self.world.until(
            lambda: [post for post in self.carrier.posts if post.id == submitted.id], f"{speaker.name} posts"
        )
        return posts[-1]  # type: ignore[no-any-return]

    def attestation_of(self, post: Post) -> Any:
        return self.world.held.attestations[post.att]

    def can_read(self, post: Post, box: str, box_secret: bytes, secrets: Iterable[bytes] = ()) -> bool:
        """Whether a post opens with a box key on any slot that the broker ever carried, or with known secrets."""
        known = list(secrets)
        for put in self.carrier.epochs:
            found = [wire_channels.secret_for(put.st, slot, box, box_secret) for slot in put.slots]
            known += [secret for secret in found if secret is not None]
        return any(wire_channels.opens(post, self.attestation_of(post), secret) for secret in known)


def holds(victim: Victim, epoch: str) -> bool:
    """Whether a victim has taken an epoch."""
    return bool(victim.rows("SELECT 1 FROM epochs WHERE epoch = ? AND publication IS NULL", epoch))


# Epochs


async def make_an_epoch_as_an_outsider(world: World) -> Outcome:
    """A10: the broker, who holds no member's key, makes epochs in its own name and in the owner's."""
    stage = await Stage.set(world)
    bob = await stage.victim("bob")
    ghost = WireMember("ghost", world.clock)
    ghost.follow(*world.held.main.entries)
    world.show_head(ghost)
    boxes = stage.boxes() | {ghost.id: ghost.box.public}
    in_the_owners_name = ghost.forged_attestation(world.broker.key, ghost.session)
    forged_body = statements.decode(ghost.usual_attestation().b.encode()) | {"member": world.owner.id}
    by_its_own_key = statements.sign_statement(forged_body, "att", ghost.sign)
    forgeries = [
        wire_channels.make(ghost, boxes),
        wire_channels.make(ghost, boxes, by=world.owner.id),
        wire_channels.make(ghost, boxes, by=world.owner.id, attestation=in_the_owners_name),
        wire_channels.make(ghost, boxes, by=world.owner.id, attestation=by_its_own_key),
        wire_channels.make(ghost, boxes, by=world.owner.id, attestation=world.owner.usual_attestation()),
    ]
    for forged in forgeries:
        await stage.give(forged, bob, checked=False)
    await world.probe(bob)

    post = await stage.says(bob, "not for the broker")

    taken = any(holds(bob, forged.id) for forged in forgeries)
    read = stage.can_read(post, ghost.box.public, ghost.box.secret, [forged.secret for forged in forgeries])
    return Outcome(taken or read, bob.codes)


async def tamper_with_a_slot(world: World) -> Outcome:
    """A10: the owner's true epoch, and bob's slot altered, replaced by another member's, cut."""
    stage = await Stage.set(world, "mallory")
    bob = await stage.victim("bob")
    epoch = wire_channels.make(world.owner, stage.boxes())
    true = epoch.slots[bob.id]
    others = epoch.slots[world.owner.id]
    for slot in (true[:-4] + "AAAA", true[:8] + others[8:], true[:8] + "*" * 64, others, true[:-1], ""):
        await stage.give(epoch, bob, slot)

    post = await stage.says(bob, "in spite of it")

    return Outcome(holds(bob, epoch.id) or post.ep == epoch.id, bob.codes)


async def give_one_member_another_key(world: World) -> Outcome:
    """A24: mallory seals to bob another secret than it committed to, and nothing to carol."""
    stage = await Stage.set(world, "mallory")
    mallory = stage.hands[1]
    bob, carol = await stage.victim("bob"), await stage.victim("carol")
    seed, at = os.urandom(32), world.clock()
    epoch = wire_channels.make(mallory, stage.boxes(), entropy=os.urandom(32) + seed, at=at)
    other = wire_channels.make(mallory, stage.boxes(), entropy=os.urandom(32) + seed, at=at)
    other = replace(epoch, slots=other.slots)
    await stage.give(other, bob)
    await stage.give(other, carol, slot="")
    taken = holds(bob, other.id)

    post = await stage.says(bob, "still works")
    if not taken:
        await world.until(lambda: "still works" in carol.texts, "carol reads bob")

    return Outcome(taken or post.ep == other.id, bob.codes | carol.codes)


async def publish_two_epochs(world: World) -> Outcome:
    """One rotator gives bob and carol two epochs in opposite orders; they must choose the same one."""
    stage = await Stage.set(world, "mallory")
    mallory = stage.hands[1]
    bob, carol = await stage.victim("bob"), await stage.victim("carol")
    one, two = (wire_channels.make(mallory, stage.boxes()) for _ in range(2))
    for victim, order in ((bob, (one, two)), (carol, (two, one))):
        for epoch in order:
            await stage.give(epoch, victim)

    used = {(await stage.says(bob, "from bob")).ep, (await stage.says(carol, "from carol")).ep}

    await world.until(lambda: "from bob" in carol.texts and "from carol" in bob.texts, "both read both")
    return Outcome(used != {min(one.id, two.id)}, bob.codes | carol.codes)


async def date_an_epoch_back(world: World) -> Outcome:
    """A26: a revoked member, with the broker, makes an epoch as of before its revocation, and one as of after."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    back_dated = wire_channels.make(mallory, stage.boxes())
    late = wire_channels.post(mallory, back_dated, "I am still here")
    await stage.extend(world.owner.entry("revoke", who=mallory.id, why="removed"))
    now = world.owner
    claims_the_present = wire_channels.make(
        mallory,
        stage.boxes() | {mallory.id: mallory.box.public},
        rs=now.roster.seq,
        rh=now.roster.head,
        ra=now.head_signature[0],
        rg=now.head_signature[1],
    )
    await stage.give(back_dated, bob)
    await stage.give(claims_the_present, bob)
    await stage.hand_over(late, bob)

    post = await stage.says(bob, "without mallory")

    secrets = [back_dated.secret, claims_the_present.secret]
    read = stage.can_read(post, mallory.box.public, mallory.box.secret, secrets)
    spoke = bob.message("I am still here") is not None
    readable = frozenset({"readable"} if holds(bob, back_dated.id) else ())
    return Outcome(read or spoke or holds(bob, claims_the_present.id), bob.codes | readable)


async def go_beyond_a_sessions_capabilities(world: World) -> Outcome:
    """A28: a session that may only send direct messages posts, rotates, and attests itself to more."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    honest = await stage.general(bob)
    narrow = mallory.attestation(capabilities=("dm",))
    wider = statements.decode(narrow.b.encode()) | {"caps": ["chan", "dm"]}
    by_the_session = statements.sign_statement(wider, "att", mallory.session.sign)
    as_the_peer = type(narrow)(by_the_session.b, mallory.id, by_the_session.s)

    await stage.hand_over(wire_channels.post(mallory, honest, "may I?", attestation=narrow), bob)
    rotations = [
        wire_channels.make(mallory, stage.boxes(), attestation=shown) for shown in (narrow, by_the_session, as_the_peer)
    ]
    for epoch in rotations:
        await stage.give(epoch, bob, checked=False)
    for shown in (by_the_session, as_the_peer):
        post = wire_channels.post(mallory, honest, "may I now?", attestation=shown)
        await stage.hand_over(post, bob, checked=False)
    await world.probe(bob)

    said = any(text.startswith("may I") for text in bob.texts)
    return Outcome(said or any(holds(bob, epoch.id) for epoch in rotations), bob.codes)


async def claim_a_head_in_an_epoch_or_post(world: World) -> Outcome:
    """An epoch and a post that name roster heads which their author cannot prove: another past, and a future."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    honest = await stage.general(bob)
    claims: list[dict[str, Any]] = [
        {"rs": mallory.roster.seq, "rh": "ab" * 32},
        {"rs": mallory.roster.seq + 50, "rh": "cd" * 32},
    ]
    forged = [wire_channels.make(mallory, stage.boxes(), **claim) for claim in claims]
    for epoch in forged:
        await stage.give(epoch, bob)
    for claim in claims:
        await stage.hand_over(wire_channels.post(mallory, honest, "believe me", **claim), bob)
    await world.settles(bob)
    frozen = bob.freeze

    taken = any(holds(bob, epoch.id) for epoch in forged)
    return Outcome(taken or "believe me" in bob.texts or frozen is not None, bob.codes)


# Posts


async def speak_as_another(world: World) -> Outcome:
    """A21: mallory holds the channel's key and writes as the owner."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    epoch = await stage.general(bob)
    owner = world.owner
    as_the_owner: dict[str, Any] = {"from": owner.id, "sess": owner.session.id}
    forgeries = [
        wire_channels.post(mallory, epoch, "i am alice", attestation=owner.usual_attestation(), **as_the_owner),
        wire_channels.post(mallory, epoch, "i am alice", **as_the_owner),
        wire_channels.post(mallory, epoch, "i am alice", **(as_the_owner | {"sess": mallory.session.id})),
    ]
    for forged in forgeries:
        await stage.hand_over(forged, bob)
    await world.probe(bob)

    return Outcome("i am alice" in bob.texts, bob.codes)


async def post_under_an_epoch_that_nobody_has(world: World) -> Outcome:
    """Mallory floods bob with posts that cannot be opened; the others must go on."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    honest = await stage.general(bob)
    secret = wire_channels.make(mallory, stage.boxes())
    flood = [wire_channels.post(mallory, secret, f"nonsense {number}") for number in range(600)]
    await stage.push(bob, *[one.delivery() for one in flood[:250]], attestations=[mallory.usual_attestation()])
    await stage.push(bob, *[one.delivery() for one in flood[250:500]], attestations=[mallory.usual_attestation()])
    await stage.push(bob, *[one.delivery() for one in flood[500:]], attestations=[mallory.usual_attestation()])
    (parked,) = bob.rows("SELECT count(*) FROM parked_posts")[0]
    await stage.hand_over(wire_channels.post(world.owner, honest, "and I?"), bob)
    await world.until(lambda: "and I?" in bob.texts, "bob reads the owner")
    (asked,) = bob.rows("SELECT count(*) FROM outbox WHERE content_type = 'cm/nack'")[0]

    return Outcome(parked > 500 or asked > 1, bob.codes)


async def replay_a_post(world: World) -> Outcome:
    """A12: the same post again: at once, and after the inbox was emptied."""
    stage = await Stage.set(world)
    bob = await stage.victim("bob")
    post = wire_channels.post(world.owner, await stage.general(bob), "deploy now")
    for _ in range(2):
        await stage.hand_over(post, bob)
    await world.probe(bob)
    at_once = bob.texts.count("deploy now")
    bob = await bob.restarted("DELETE FROM inbox")
    await stage.hand_over(post, bob)
    await world.probe(bob)

    assert at_once >= 1
    return Outcome(at_once > 1 or "deploy now" in bob.texts, bob.codes)


async def carry_a_post_to_another_channel(world: World) -> Outcome:
    """A14: a post of #general is delivered as one of #prod, and of the space in which there are names."""
    stage = await Stage.set(world)
    bob = await stage.victim("bob")
    prod = (await bob.peer.create_channel("#prod")).id
    await stage.announce()
    world.owner.follow(*world.held.main.entries[world.owner.roster.seq + 1 :])
    epoch = await stage.general(bob)
    for channel in (prod, SPACE):
        post = wire_channels.post(world.owner, epoch, "yes, do it")
        await stage.hand_over(replace(post, frame=msgspec.structs.replace(post.frame, chan=channel)), bob)
    await world.probe(bob)

    return Outcome("yes, do it" in bob.texts, bob.codes)


async def fuzz_posts_and_epochs(world: World) -> Outcome:
    """A31: one character of a post, of a record or of a slot is another one, three hundred times."""
    stage = await Stage.set(world)
    bob = await stage.victim("bob")
    chance, surfaced = random.Random(31), 0
    epoch = await stage.general(bob)
    for _ in range(150):
        post = wire_channels.post(world.owner, epoch, "fuzz")
        field = chance.choice(("ct", "nonce", "chan", "ep", "att"))
        altered = _with_another_character(getattr(post.frame, field), chance)
        frame = msgspec.structs.replace(post.frame, **{field: altered})
        await stage.hand_over(replace(post, frame=frame), bob, checked=False)
    for _ in range(150):
        rival = wire_channels.make(world.owner, stage.boxes())
        true, part = rival.made.statement, chance.choice(("b", "s", "k", "slot"))
        statement, slot = true, rival.slots[bob.id]
        if part == "slot":
            slot = _with_another_character(slot, chance)
        else:
            statement = msgspec.structs.replace(true, **{part: _with_another_character(getattr(true, part), chance)})
        delivery = wire_channels.epoch_delivery(statement, rival.attestation, slot)
        await stage.push(bob, delivery, attestations=[rival.attestation], checked=False)
        surfaced += holds(bob, rival.id)
    await world.probe(bob)

    post_again = await stage.says(bob, "alive")
    epochs = bob.rows("SELECT epoch FROM epochs")
    return Outcome(bool(surfaced) or "fuzz" in bob.texts or epochs != [(epoch.id,)], bob.codes | {post_again.prio})


# Membership


async def make_too_many_channels(world: World) -> Outcome:
    """A member makes more channels than it may, and the broker takes them all."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    entries = []
    for number in range(CHANNELS_PER_PEER + 1):
        entries.append(mallory.entry("chan", chan=f"{number + 16:032x}", kind="open"))
        if number < CHANNELS_PER_PEER:
            mallory.follow(entries[-1])
    refused = _refusal_of(world, *entries)
    await world.show_forged(bob, *entries)
    await world.probe(bob)

    made = [channel for channel in bob.roster().channels.values() if channel.creator == mallory.id]
    return Outcome(len(made) > CHANNELS_PER_PEER, refused)


async def post_before_anybody_has_rotated(world: World) -> Outcome:
    """A36: the revoker goes offline at once; bob, who holds an epoch of the revoked member's time, posts next."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    before = await stage.general(bob)
    first = await stage.says(bob, "old")
    await stage.extend(world.owner.entry("revoke", who=mallory.id, why="stolen"))

    post = await stage.says(bob, "new")

    assert first.ep == before.id
    return Outcome(stage.can_read(post, mallory.box.public, mallory.box.secret, [before.secret]), bob.codes)


async def read_with_a_stolen_box_key(world: World) -> Outcome:
    """A47: carol's box key was stolen, and she has said so in the roster; bob posts next."""
    stage = await Stage.set(world, "carol")
    bob, carol = await stage.victim("bob"), stage.hands[1]
    world.held.cards[carol.id] = carol.card()
    stolen = carol.box
    before = await stage.general(bob)
    await stage.says(bob, "x")
    carol.box = primitives.box_key(os.urandom(32))
    await stage.extend(carol.entry("rekey", box=carol.box.public, cs=2))

    post = await stage.says(bob, "after rekey")

    assert stage.can_read(post, carol.box.public, carol.box.secret) or post.ep == before.id
    return Outcome(stage.can_read(post, stolen.public, stolen.secret, [before.secret]), bob.codes)


async def revoke_while_somebody_joins(world: World) -> Outcome:
    """A35: a revocation comes between the newcomer's last look at the log and its admission."""
    stage = await Stage.set(world, "mallory")
    mallory = stage.hands[1]
    raced: list[bool] = []
    carry = world.broker.lies.incoming

    async def race(link: Any, frame: Any) -> bool:
        if isinstance(frame, messages.Append) and not raced and '"op":"admit"' in frame.entries[0].b:
            raced.append(True)
            await stage.extend(world.owner.entry("revoke", who=mallory.id, why="removed"))
        return bool(await carry(link, frame))  # type: ignore[misc]

    world.broker.lies.incoming = race
    bob = await stage.victim("bob")
    world.broker.lies.incoming = carry

    post = await stage.says(bob, "who is here?")

    roster = bob.roster()
    survivors = set(stage.carrier.slots(post.ep, await world.broker.connected(bob.id)))
    assert raced
    assert roster.is_active(bob.id)
    assert not roster.is_active(mallory.id)
    return Outcome(
        survivors != {world.owner.id, bob.id} or stage.can_read(post, mallory.box.public, mallory.box.secret), bob.codes
    )


async def enter_a_private_channel(world: World) -> Outcome:
    """A40: the owner of the mesh, who is not in bob's channel, adds itself."""
    stage = await Stage.set(world)
    bob = await stage.victim("bob")
    channel = (await bob.peer.create_channel("#quiet", "private")).id
    world.owner.follow(*world.held.main.entries[world.owner.roster.seq + 1 :])
    intrusion = world.owner.entry("chan_add", chan=channel, who=world.owner.id)
    refused = _refusal_of(world, intrusion)
    await world.show_forged(bob, intrusion)
    await world.broker.connected(bob.id)

    await bob.peer.send("#quiet", "psst")
    post = (await stage.carrier.posted(bob.id))[-1]

    read = stage.can_read(post, world.owner.box.public, world.owner.box.secret)
    inside = world.owner.id in bob.roster().channel_members(channel)
    return Outcome(read or inside, refused)


# Secrets that are handed on


async def ask_for_a_slot_without_being_entitled(world: World) -> Outcome:
    """A48: a newcomer asks for the epoch from before its time; a member from then, who had no slot, gets it."""
    stage = await Stage.set(world, "carol")
    carol, bob = stage.hands[1], await stage.victim("bob")
    post = await stage.says(bob, "before")
    mallory = world.member("mallory")
    stage.hands.append(mallory)
    await stage.announce()
    nack = contents.write_nack(Nack(topic_of(post.ep), "no_epoch_key", Digest(post.ep)))

    await world.deliver(bob, mallory.write(bob.id, bob.kid, nack, ct=contents.NACK))
    await world.probe(bob)
    await bob.settled()
    refused = bob.codes
    to_mallory = _letters(world, bob, mallory)
    await world.deliver(bob, carol.write(bob.id, bob.kid, nack, ct=contents.NACK))
    to_carol = await world.until(lambda: _letters(world, bob, carol), "carol gets the secret")

    assert len(to_carol) == 1
    assert statements.decode(to_carol[0])["ep"] == post.ep
    return Outcome(bool(to_mallory), refused)


async def ask_a_thousand_times(world: World) -> Outcome:
    """N11: nacks about one epoch, about epochs that nobody has, and about messages of others, a thousand in all."""
    stage = await Stage.set(world, "carol")
    carol, bob = stage.hands[1], await stage.victim("bob")
    post = await stage.says(bob, "hello")
    sent = await bob.peer.send(carol.id, "a letter")
    await bob.settled()
    world.held.mail.take(carol.id)
    real = contents.write_nack(Nack(topic_of(post.ep), "no_epoch_key", Digest(post.ep)))
    real_letter = contents.write_nack(Nack(MessageId(sent.id), "stale_key"))
    foreign = contents.write_nack(Nack(MessageId("ab" * 16), "no_epoch_key", Digest("ab" * 32)))
    foreign_letter = contents.write_nack(Nack(MessageId("cd" * 16), "stale_key"))
    for _ in range(5):
        letters = [
            carol.write(bob.id, bob.kid, body, ct=contents.NACK)
            for body in (real, real_letter, foreign, foreign_letter)
            for _ in range(50)
        ]
        await world.deliver(bob, *letters)
    await world.probe(bob)
    await bob.settled()

    answers = _letters(world, bob, carol)
    slots = [body for body in answers if b'"ep"' in body]
    again = [body for body in answers if body == b"a letter"]
    return Outcome(len(slots) > 1 or len(again) > 1, frozenset({f"{len(slots)} slots", f"{len(again)} letters"}))


async def share_a_forged_history(world: World) -> Outcome:
    """A39: a member shares an older epoch whose record was changed; then the true one."""
    stage = await Stage.set(world)
    owner = world.owner
    old = wire_channels.make(owner, stage.boxes())
    before = wire_channels.post(owner, old, "from before")
    bob = await stage.victim("bob")
    new = await stage.general(bob)
    await stage.hand_over(before, bob)
    assert "from before" not in bob.texts
    true = share_history(_held(old, world), _held(new, world), os.urandom(24))
    record = dict(true["old"])
    forgeries = [
        true | {"old": record | {"kc": "00" * 32}},
        true | {"old": record | {"by": bob.id}},
        true | {"old": record | {"at": record["at"] + 1, "kc": "11" * 32}},
    ]
    for body in forgeries:
        letter = owner.write(bob.id, bob.kid, channel_contents.write_body(body), ct=channel_contents.HISTORY)
        await world.deliver(bob, letter)
    await world.probe(bob)
    taken = bob.rows("SELECT count(*) FROM epochs WHERE statement IS NULL")[0][0] > 0 or "from before" in bob.texts

    shared = channel_contents.write_body(true)
    await world.deliver(bob, owner.write(bob.id, bob.kid, shared, ct=channel_contents.HISTORY))
    await world.until(lambda: holds(bob, old.id), "the true one is taken")
    post = await stage.says(bob, "under the new one")

    return Outcome(taken or post.ep == old.id, bob.codes)


async def share_a_past_that_cannot_be_kept(world: World) -> Outcome:
    """A39: a member shares posts of its own that are no text, or dated before any time; success is that bob stops."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    epoch = await stage.general(bob)
    for body, at in ((b"\xff\xfe", world.clock()), (b"a text", -(1 << 80)), (b"another", 1 << 80)):
        post = wire_channels.post(mallory, epoch, body)
        opened = wire_channels.read(post.frame, post.attestation, epoch.secret)
        proven = Evidenced(opened.frame, opened.signature, post.frame.att, post.attestation, UnixMillis(at))
        (past,) = channel_contents.write_pasts(GENERAL, [proven])
        letter = mallory.write(bob.id, bob.kid, past, ct=channel_contents.PAST)
        await world.deliver(bob, letter, checked=False)
    await world.chance(lambda: "internal" in bob.link_errors, 1.0)
    with suppress(AssertionError):
        await world.probe(bob)

    return Outcome("probe" not in bob.texts or "internal" in bob.link_errors, bob.codes)


async def discard_what_waits_for_its_epoch(world: World) -> Outcome:
    """A13: a post waits in bob's journal for its epoch; the broker delivers something under the number of its row."""
    stage = await Stage.set(world)
    bob, broker = await stage.victim("bob"), world.broker
    await stage.hand_over(wire_channels.post(world.owner, wire_channels.make(world.owner, stage.boxes()), "waits"), bob)
    (number,) = (row[0] for row in bob.rows("SELECT id FROM parked_posts"))

    link = await broker.connected(bob.id)
    await link.emit(messages.Push(d=[Delivery(q=-number, at=world.clock(), e=msgspec.Raw(b"{}"))]))
    await world.chance(lambda: not bob.rows("SELECT id FROM parked_posts"), 0.5)

    return Outcome(not bob.rows("SELECT id FROM parked_posts"), bob.codes)


# Names


async def imitate_a_channels_name(world: World) -> Outcome:
    """Mallory names a channel of its own so that it looks like bob's, and claims the name of bob's for it."""
    stage = await Stage.set(world, "mallory")
    bob, mallory = await stage.victim("bob"), stage.hands[1]
    mine = (await bob.peer.create_channel("#deploy-log")).id
    mallory.follow(*world.held.main.entries[mallory.roster.seq + 1 :])
    theirs = ChannelId("66" * 16)
    await stage.extend(mallory.entry("chan", chan=theirs, kind="open"))
    epoch = await stage.general(bob)
    listings = [Listing(theirs, "dep1oy_1og", 1), Listing(mine, "abandoned", 1 << 50), Listing(GENERAL, "other", 1)]
    body = channel_contents.write_directory(listings)
    await stage.hand_over(wire_channels.post(mallory, epoch, body, channel=SPACE, ct=channel_contents.DIRECTORY), bob)
    hidden = msgspec.json.encode({"c": [{"id": theirs, "name": "dерloy-log", "at": 2}], "v": 1})
    await stage.hand_over(wire_channels.post(mallory, epoch, hidden, channel=SPACE, ct=channel_contents.DIRECTORY), bob)

    await world.until(lambda: bob.peer.channel(f"#{theirs}").name != f"#{theirs[:8]}", "the name is known")
    shown = {view.id: view.name for view in bob.peer.channels()}
    right = {mine: "#deploy-log", theirs: f"#dep1oy_1og~{theirs[:8]}", GENERAL: "#general"}
    return Outcome({one: shown[one] for one in right} != right, bob.codes)


# Private


def _held(epoch: WireEpoch, world: World) -> HeldEpoch:
    return HeldEpoch(open_record(epoch.made.statement), epoch.secret, world.clock())


def _letters(world: World, sender: Victim, recipient: WireMember) -> list[bytes]:
    """What a victim has sent to a member that is played by hand, besides receipts and names."""
    found = []
    for row in world.held.mail.of(recipient.id):
        if row.envelope is None or row.send.sender != sender.id:
            continue
        opened = recipient.read(row.envelope, world.held.attestations[row.send.att])
        if opened.header["ct"] in (contents.TEXT, channel_contents.SLOT):
            found.append(opened.body)
    return found


def _with_another_character(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return text[:at] + chance.choice([one for one in '0123456789abcdefXYZ_-"{}' if one != text[at]]) + text[at + 1 :]


def _refusal_of(world: World, *entries: Any) -> frozenset[str]:
    """The code with which every verifier refuses the last of some entries."""
    trial = world.held.main.copy()
    try:
        for entry in entries:
            trial.append(entry)
    except ClaudemeshError as error:
        return frozenset({error.code})
    return frozenset({""})


async def have_a_frozen_peer_seal_again(world: World) -> Outcome:
    """A07: bob has frozen the mesh; the broker says of what was in flight that its roster is outdated."""
    stage = await Stage.set(world)
    bob, broker = await stage.victim("bob"), world.broker
    other = world.held.main.copy()
    other.append(world.owner.entry("chan", chan="22" * 16, kind="group"))
    await stage.extend(world.owner.entry("chan", chan="11" * 16, kind="group"))
    stage.carrier.swallows = {Send, Post}
    for address in (world.owner.id, "#general"):
        await bob.peer.send(address, "in flight")
    sent: list[Send] = await world.until(lambda: broker.heard(Send, bob.id), "bob sends")
    posted: list[Post] = await world.until(lambda: broker.heard(Post, bob.id), "bob posts")
    at = world.clock()
    fork = {"rs": other.seq, "rh": other.head, "ra": at, "rg": other.signed_head(broker.key, at).s}
    await world.deliver(bob, world.owner.write(bob.id, bob.kid, "fork", **fork), checked=False)
    await world.settles(bob)

    def submitted() -> int:
        return len(broker.heard(Send, bob.id)) + len(broker.heard(Post, bob.id))

    link, before = await broker.connected(bob.id), submitted()
    await link.emit(messages.Refused(code="stale_roster", id=sent[0].id, to=sent[0].to))
    await link.emit(messages.Refused(code="stale_roster", id=posted[0].id, chan=posted[0].chan))
    await world.chance(lambda: submitted() > before, 2.0)

    return Outcome(submitted() > before or bob.freeze is None, frozenset({bob.freeze or ""}))
