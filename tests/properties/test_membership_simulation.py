"""Who can read a channel message is who its sender saw in the channel, whatever happens in between.

Members lag, race, rotate blindly, come and go; the broker is honest, careless or forking; those who
were removed collude with it. Each run is seeded; CLAUDEMESH_SIMULATION_RUNS sets how many there are.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

import pytest

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.epoch_record import EpochRecord, open_record
from claudemesh.crypto.epochs import SLOT_KEY_DIGITS, channel_key
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import EpochRefused, Refused, RosterConflict, RosterRefused, Unopenable
from claudemesh.protocol import epoch_rules, epochs
from claudemesh.protocol.epochs import EpochBook, HeldEpoch
from claudemesh.protocol.heads import Gossip, SignedHead, is_proven
from claudemesh.protocol.messages import Post
from claudemesh.protocol.roster import GENERAL, Roster
from claudemesh.types import BoxId, ChannelId, PeerId, UnixMillis
from tests import channel_members
from tests.channel_members import Clock, Member, MemoryBroker, StoredEpoch, team

RUNS = int(os.environ.get("CLAUDEMESH_SIMULATION_RUNS", "100"))
STEPS = 90
CONTROL_SEEDS = 8


class Leak(AssertionError):
    """Somebody can read a message whose sender did not see it in the channel."""


class Lockout(AssertionError):
    """Somebody whom the sender saw in the channel cannot read the message."""


@dataclass
class Thief:
    """Stole all keys of a member, which then replaced its box key."""

    victim: PeerId
    rekeyed_seq: int
    boxes: dict[BoxId, bytes]
    secrets: set[bytes]


class Simulation:
    """One seeded run against a broker that does not fork."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.clock = Clock()
        self.broker, (self.owner,) = team("owner", seed=seed + 1_000_000, refuses_stale=self.random.random() < 0.4)
        self.clock = self.broker.clock
        self.members = [self.owner]
        self.thieves: list[Thief] = []
        self.invites: list[SigningKey] = []
        self.channels: list[ChannelId] = [GENERAL]
        self.sent: list[tuple[Post, frozenset[PeerId]]] = []
        self.counts: Counter[str] = Counter()

    @property
    def live(self) -> list[Member]:
        return [member for member in self.members if self.broker.roster.is_active(member.id)]

    def run(self, steps: int = STEPS) -> None:
        self.invites.append(self.owner.invite(uses=3))
        for _ in range(3):
            self._join()
        for _ in range(steps):
            self.clock.advance(self.random.randrange(1_000))
            actions, weights = zip(*self._actions(), strict=True)
            self.random.choices(actions, weights)[0]()
        for member in self.live:
            member.sync()
            member.drain(shuffle=True)

    def _actions(self) -> Iterator[tuple[Callable[[], None], int]]:
        yield self._speak, 50
        yield self._read, 15
        yield self._join, 10
        yield self._change_channel, 9
        yield self._revoke, 6
        yield self._backdate, 4
        yield self._rekey, 3
        yield self._create_channel, 3

    def _join(self) -> None:
        if self.random.random() < 0.3:
            self.invites.append(self.owner.invite(uses=self.random.choice((1, 2, 3))))
        newcomer = Member(f"m{len(self.members)}", self.broker, self.random)
        try:
            self.members.append(newcomer.join(self.random.choice(self.invites)))
        except RosterRefused as refusal:
            assert refusal.detail in ("invite_exhausted", "invite_revoked"), refusal.detail  # noqa: PT017

    def _revoke(self) -> None:
        candidates = [member for member in self.live if member is not self.owner]
        if len(candidates) > 2:
            victim = self.random.choice(candidates)
            self.owner.append("revoke", who=victim.id, why="removed")
            self.counts["revoked"] += 1
            if self.random.random() < 0.5:
                self.owner.rotate()

    def _backdate(self) -> None:
        """An ex-member signs an epoch of the time when it was in, and the broker hands it to everybody of then."""
        gone = [member for member in self.members if not self.broker.roster.is_active(member.id)]
        if not gone or self.broker.refuses_stale:
            return
        member = self.random.choice(gone)
        revoked_seq = self.broker.roster.members[member.id].revoked_seq
        assert revoked_seq is not None
        past = Roster.restore(self.broker.entries[:revoked_seq])
        scopes = sorted({past.scope_of(channel) for channel in self.channels if channel in past.channels})
        scope = self.random.choice([one for one in scopes if member.id in past.channel_members(one)])
        assert past.mesh is not None
        head = SignedHead(past.mesh, past.seq, past.head, self.clock.now, "")
        boxes = {one.id: one.box for one in past.members.values()}
        entropy = self.random.randbytes(64)
        made = epochs.rotate(past, head, scope, member.id, member.session, boxes, self.clock.now, entropy)
        member.book.hold(HeldEpoch(made.record, made.secret, self.clock.now))
        self.broker.put_epoch(made.statement, member.attestation, made.slots)
        self.counts["backdated"] += 1

    def _rekey(self) -> None:
        victim = self.random.choice(self.live)
        victim.drain()
        boxes, secrets = victim.box_secrets, secrets_of(victim)
        victim.rekey()
        self.thieves.append(Thief(victim.id, self.broker.roster.seq, boxes, secrets))

    def _create_channel(self) -> None:
        channel = ChannelId(self.random.randbytes(16).hex())
        kind = self.random.choice(("open", "private", "group"))
        self.random.choice(self.live).append("chan", chan=channel, kind=kind)
        self.channels.append(channel)

    def _change_channel(self) -> None:
        by, who = self.random.choice(self.live), self.random.choice(self.live)
        op = "chan_add" if self.random.random() < 0.7 else "chan_del"
        try:
            by.append(op, chan=self.random.choice(self.channels), who=who.id)
        except RosterRefused as refusal:
            assert refusal.code == "denied"  # noqa: PT017

    def _read(self) -> None:
        member = self.random.choice(self.live)
        if self.random.random() < 0.5:
            member.sync()
        member.drain(shuffle=self.random.random() < 0.5)

    def _speak(self) -> None:
        """One to three members write to one channel, none of which has heard of what the others do now."""
        channel = self.random.choice(self.channels)
        inside = [one for one in self.live if channel in one.roster.channels]
        inside = [one for one in inside if one.id in one.roster.channel_members(channel)]
        for member in self.random.sample(inside, min(len(inside), self.random.choice((1, 1, 2, 3)))):
            fresh = self.random.random() < 0.6
            if self.random.random() < 0.3:
                member.drain()
            try:
                if self.random.random() < 0.5:
                    self._rotate_blindly(member, channel, fresh)
                post = member.post(channel, f"text {len(self.sent)}", sync=fresh)
            except EpochRefused as refusal:
                assert refusal.code == "epoch_author", refusal  # noqa: PT017
                continue
            self.sent.append((post, self.broker.roster.channel_members(channel) - {member.id}))

    def _rotate_blindly(self, member: Member, channel: ChannelId, fresh: bool) -> None:
        """Make an epoch without having read whether another is on its way: the race is real."""
        if fresh:
            member.sync()
        if member.usable(channel) is None:
            try:
                member.rotate(member.roster.scope_of(channel))
                self.counts["raced"] += 1
            except Refused as refusal:
                assert refusal.code == "stale_roster"  # noqa: PT017

    # What must hold

    def check(self) -> None:
        self._check_who_can_decrypt()
        for member in self.live:
            assert member.frozen is None, f"{member} froze although the broker told everybody the same"
            self._check_has_read(member)
        self._check_convergence()

    def _check_who_can_decrypt(self) -> None:
        roster = self.broker.roster
        knowledge = {
            member.id: everything_readable_by(member.box_secrets, secrets_of(member), self.broker.epochs)
            for member in self.members
        }
        stolen = [everything_readable_by(thief.boxes, thief.secrets, self.broker.epochs) for thief in self.thieves]
        all_secrets = set().union(*knowledge.values())
        for post, _ in self.sent:
            openers = {secret for secret in all_secrets if opens(secret, post)}
            for member in self.members:
                entitled = roster.was_in_channel_at(member.id, ChannelId(post.chan), post.rs)
                judge(entitled, bool(openers & knowledge[member.id]), f"{member} and {post.id}")
            for thief, secrets in zip(self.thieves, stolen, strict=True):
                was_in = roster.was_in_channel_at(thief.victim, ChannelId(post.chan), post.rs)
                judge(was_in and post.rs < thief.rekeyed_seq, bool(openers & secrets), f"a thief and {post.id}")
            self.counts["decryptable"] += 1

    def _check_has_read(self, member: Member) -> None:
        """Everybody who was entitled and reached has read the message, or quarantined it as of one who left."""
        roster = self.broker.roster
        for post, reached in self.sent:
            entitled = roster.was_in_channel_at(member.id, ChannelId(post.chan), post.rs)
            if member.id not in reached or post.id in member.messages or not entitled:
                continue
            left = PeerId(post.sender) not in roster.channel_members(ChannelId(post.chan))
            reason = member.quarantine.get(post.id)
            if not (left and reason in ("not_a_member", "not_in_channel")):
                raise Lockout(f"{member} did not read {post.id}: {reason}")
        self.counts["read"] += len(member.messages)

    def _check_convergence(self) -> None:
        """Rotations that raced leave no two members with different ideas of the current epoch."""
        roster = self.broker.roster
        for scope in {roster.scope_of(channel) for channel in self.channels}:
            inside = [member for member in self.live if member.id in roster.channel_members(scope)]
            chosen = {epoch.id if epoch else None for epoch in (member.usable(scope) for member in inside)}
            assert len(chosen) <= 1, f"{scope[:8]} did not converge"


@pytest.mark.parametrize("seed", range(RUNS))
def test_those_who_can_read_a_message_are_those_whom_its_sender_saw(seed: int) -> None:
    """With every key that a party ever held, stole or made, and the whole store of the broker."""
    simulation = Simulation(seed)

    simulation.run()

    simulation.check()
    assert simulation.sent


def _ignoring_membership(
    self: EpochBook, roster: Roster, scope: ChannelId, now: UnixMillis, dead: object = ()
) -> HeldEpoch | None:
    return next(iter(self.of_scope(scope)), None)


def _trusting_the_revoked(
    self: EpochBook, roster: Roster, scope: ChannelId, now: UnixMillis, dead: object = ()
) -> HeldEpoch | None:
    version = roster.channel_version(scope)
    held = [
        epoch
        for epoch in self.of_scope(scope)
        if epoch.record.roster_seq >= version or not roster.is_active(epoch.record.author)
    ]
    return max(held, key=lambda epoch: epoch.record.made_at, default=None)


def _ever_in_the_channel(roster: Roster, scope: ChannelId, seq: int) -> list[PeerId]:
    history = (one for one in range(seq + 1))
    return sorted({peer for past in history for peer in epoch_rules.slot_holders(roster, scope, past)})


def _only_by_active_authors(record: EpochRecord, roster: Roster) -> None:
    epoch_rules.check_place(record, roster)
    if not roster.is_active(record.author):
        raise EpochRefused("epoch_author")


BROKEN_RULES: dict[str, tuple[type[AssertionError], list[tuple[object, str, object]]]] = {
    "send rule ignores membership": (Leak, [(EpochBook, "usable", _ignoring_membership)]),
    "epochs of revoked authors are usable": (Leak, [(EpochBook, "usable", _trusting_the_revoked)]),
    "slots for all who ever were members": (
        Leak,
        [(epochs, "slot_holders", _ever_in_the_channel), (channel_members, "slot_holders", _ever_in_the_channel)],
    ),
    "epochs of revoked authors are unreadable": (Lockout, [(epochs, "check_place", _only_by_active_authors)]),
}


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_simulation_notices_a_broken_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the property above can fail, and fails for the reason that was planted."""
    expected, replacements = BROKEN_RULES[rule]
    for owner, name, broken in replacements:
        monkeypatch.setattr(owner, name, broken)

    found = [type(problem) for problem in map(_problem_of, range(1000, 1000 + CONTROL_SEEDS)) if problem]

    assert expected in found


def _problem_of(seed: int) -> AssertionError | None:
    simulation = Simulation(seed)
    simulation.broker.refuses_stale = False
    try:
        simulation.run()
        simulation.check()
    except AssertionError as problem:
        return problem
    return None


# A broker that forks


@pytest.mark.parametrize("seed", range(1000, 1000 + 2 * RUNS))
def test_no_channel_message_crosses_a_fork_unnoticed(seed: int) -> None:
    """It is refused with proof, or its sender's branch is merely behind; then the first answer is."""
    random = Random(seed)
    broker, members = team("owner", *(f"m{number}" for number in range(4)), seed=seed)
    here, there = split(random, broker, members)
    sender, receiver = (random.choice(here), random.choice(there))[:: random.choice((1, -1))]

    was_behind = sender.roster.seq < receiver.roster.seq
    exposed = crosses(sender, receiver) is None

    if not exposed:
        assert was_behind
        assert receiver.roster.digest_at(sender.roster.seq) == sender.roster.head
        assert crosses(receiver, sender) is None
    victim = receiver if exposed else sender
    assert victim.frozen in (Gossip.FORK, Gossip.WITHHELD)
    assert victim.proof is not None
    assert is_proven(victim.proof, victim.roster)
    with pytest.raises(RosterConflict, match="frozen"):
        victim.post(GENERAL, "never sent")


def split(random: Random, broker: MemoryBroker, members: list[Member]) -> tuple[list[Member], list[Member]]:
    """Give some members another broker of the same name, and let the mesh change on one side or on both."""
    other = broker.fork()
    there = [member for member in members[1:] if random.random() < 0.5] or members[1:2]
    here = [member for member in members if member not in there]
    for member in there:
        member.broker = other
    here[0].append("chan", chan=random.randbytes(16).hex(), kind="group")
    if random.random() < 0.7:
        random.choice(there).append("chan", chan=random.randbytes(16).hex(), kind="group")
    for member in members:
        member.sync()
    return here, there


def crosses(sender: Member, receiver: Member) -> str | None:
    """Carry a post, and the epoch that it is under, to the other side; returns the text when it was believed."""
    post = sender.post(GENERAL, "across")
    everywhere = (*sender.broker.epochs, *receiver.broker.epochs)
    stored = next(one for one in everywhere if one.id == post.ep)
    try:
        receiver.take_epoch(stored)
        return receiver.take_post(post).opened.body.decode()
    except RosterConflict:
        return None


# What a party can do with everything that it has


def secrets_of(member: Member) -> set[bytes]:
    """Every epoch secret in the member's book."""
    held = (member.book.find(stored.id) for stored in member.broker.epochs)
    return {epoch.secret for epoch in held if epoch is not None}


def everything_readable_by(boxes: dict[BoxId, bytes], secrets: set[bytes], stored: Iterable[StoredEpoch]) -> set[bytes]:
    """The epoch secrets of a party: those it holds, and those in any slot, whomever it is for, that it can open."""
    found = set(secrets)
    for one in stored:
        ephemeral = open_record(one.statement).box
        for box, secret in boxes.items():
            nonce = bytes.fromhex(statements.digest("slot", bytes.fromhex(ephemeral) + bytes.fromhex(box)))[:24]
            found |= set(_open_any(one.slots.values(), nonce, ephemeral, secret))
    return found


def _open_any(slots: Iterable[str], nonce: bytes, ephemeral: str, secret: bytes) -> Iterator[bytes]:
    for slot in slots:
        try:
            yield primitives.box_open(statements.from_base64url(slot[SLOT_KEY_DIGITS:]), nonce, ephemeral, secret)
        except Unopenable:
            continue


def opens(secret: bytes, post: Post) -> bool:
    key = channel_key(secret, ChannelId(post.chan))
    try:
        primitives.secretbox_open(statements.from_base64url(post.ct), statements.from_base64url(post.nonce), key)
    except Unopenable:
        return False
    return True


def judge(entitled: bool, can_read: bool, what: str) -> None:
    if can_read and not entitled:
        raise Leak(what)
    if entitled and not can_read:
        raise Lockout(what)
