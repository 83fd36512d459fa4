"""The roster against a naive telling of its rules, over random histories (docs/spec/roster.md)."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from claudemesh.errors import RosterRefused
from claudemesh.protocol.roster import Entry, Roster, sign_entry
from claudemesh.types import ChannelId, InviteId, PeerId, UnixMillis, UserId
from tests.properties.naive_roster import HOUR, NaiveRoster
from tests.rosters import START, box, channel, key

PEER_NAMES = ["alice", "bob", "carol", "dave", "eve", "frank", "phone", "laptop"]
USER_NAMES = ["user a", "user b", "user c"]
INVITE_NAMES = [f"invite {number}" for number in range(12)]
KEYS = {key(name).public: key(name) for name in [*PEER_NAMES, *USER_NAMES, *INVITE_NAMES, "recovery", "broker"]}
PEERS, USERS, INVITES = ([key(name).public for name in names] for names in (PEER_NAMES, USER_NAMES, INVITE_NAMES))
CHANNELS = [*(channel(str(number)) for number in range(3)), "0" * 32]

roles = st.sampled_from(["member", "member", "admin", "owner"])
boxes = st.sampled_from([box(name).public for name in ("box 1", "box 2", "box 3")])
users = st.sampled_from(USERS)
draws = st.data()


class RosterMachine(RuleBasedStateMachine):
    """Attempts random entries; what is allowed, and what it adds up to, must agree with the naive roster."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.naive = NaiveRoster()
        self.entries: list[Entry] = []
        self.now = START

    def attempt(self, op: str, **fields: Any) -> None:
        body = self.roster.next_body(op, UnixMillis(self.now), **fields)
        expected = self.naive.signers(body)
        entry = sign_entry(body, *(KEYS[one] for one in expected or {body["by"]}))
        if expected is None:
            with pytest.raises(RosterRefused, match=r"denied|time_back"):
                self.roster.apply(entry, UnixMillis(self.now))
            return
        self.roster.apply(entry, UnixMillis(self.now))
        self.naive.history.append(body)
        self.entries.append(entry)

    def peer(self, data: st.DataObject) -> str:
        """Mostly an active peer, so that most entries have a chance."""
        active = sorted(self.naive.active(self.naive.end))
        return data.draw(st.sampled_from(active * 4 + PEERS))

    def known(self, data: st.DataObject, what: list[str], otherwise: list[str]) -> str:
        return data.draw(st.sampled_from(what * 6 + otherwise))

    @initialize(rec=st.booleans())
    def found(self, rec: bool) -> None:
        """Alice owns, Carol is an admin, Bob a member; a link with three uses is open."""
        alice = PEERS[0]
        fields: dict[str, Any] = {"rec": key("recovery").public} if rec else {}
        owner = {"sign": alice, "box": box("alice").public, "user": USERS[0]}
        self.attempt("genesis", by=alice, m=owner, bk=key("broker").public, nonce="00" * 16, **fields)
        for invite, role, uses in ((0, "member", 4), (1, "admin", 1)):
            fields = {"inv": INVITES[invite], "role": role, "uses": uses, "exp": self.now + HOUR}
            self.attempt("invite", by=alice, **fields)
            keys = {"sign": PEERS[1 + invite], "box": box("box 1").public, "user": USERS[1 + invite]}
            self.attempt("admit", by=INVITES[invite], m=keys)

    @rule(minutes=st.sampled_from([-4, -1, 1, 30, 90]))
    def pass_time(self, minutes: int) -> None:
        self.now = UnixMillis(self.now + minutes * 60_000)

    @rule(data=draws, role=roles, uses=st.integers(0, 6), hours=st.integers(0, 2))
    def invite(self, data: st.DataObject, role: str, uses: int, hours: int) -> None:
        by, inv = self.peer(data), data.draw(st.sampled_from(INVITES))
        own = [self.naive.user(by)] if by in self.naive.peers() else []
        user = data.draw(st.one_of(st.none(), st.sampled_from(own * 4 + USERS)))
        dev = data.draw(st.one_of(st.none(), st.none(), st.integers(0, 6)))
        fields: dict[str, Any] = {"user": user} if user else {}
        if dev is not None:
            fields["dev"] = dev
        self.attempt("invite", by=by, inv=inv, role=role, uses=uses, exp=self.now + hours * HOUR, **fields)

    @rule(data=draws, uses=st.integers(1, 3))
    def link_device(self, data: st.DataObject, uses: int) -> None:
        by, inv = self.peer(data), data.draw(st.sampled_from(INVITES))
        user = self.naive.user(by) if by in self.naive.peers() else USERS[0]
        self.attempt("invite", by=by, inv=inv, role="member", uses=uses, exp=self.now + HOUR, user=user)

    @rule(data=draws, user=users, box=boxes)
    def admit(self, data: st.DataObject, user: str, box: str) -> None:
        invite = self.known(data, self.naive.invites(), INVITES)
        if invite in self.naive.invites() and data.draw(st.integers(0, 5)):
            user = self.naive.invitation(invite).get("user", user)
        sign = data.draw(st.sampled_from([*PEERS, invite]))
        self.attempt("admit", by=invite, m={"sign": sign, "box": box, "user": user})

    @rule(data=draws)
    def uninvite(self, data: st.DataObject) -> None:
        self.attempt("uninvite", by=self.peer(data), inv=self.known(data, self.naive.invites(), INVITES))

    @rule(data=draws)
    def revoke(self, data: st.DataObject) -> None:
        by = self.peer(data)
        who = data.draw(st.sampled_from([by, self.peer(data), self.peer(data), *USERS]))
        self.attempt("revoke", by=by, who=who, why="removed")

    @rule(data=draws, box=boxes, cs=st.integers(0, 4))
    def rekey(self, data: st.DataObject, box: str, cs: int) -> None:
        self.attempt("rekey", by=self.peer(data), box=box, cs=cs)

    @rule(data=draws, role=roles)
    def change_role(self, data: st.DataObject, role: str) -> None:
        by = self.known(data, sorted(self.naive.owners(self.naive.end)), PEERS)
        self.attempt("role", by=by, who=self.peer(data), role=role)

    @rule(data=draws, user=users, box=boxes)
    def recover(self, data: st.DataObject, user: str, box: str) -> None:
        by = key(data.draw(st.sampled_from(["alice", "alice", "recovery"]))).public
        sign = data.draw(st.sampled_from(PEERS + INVITES))
        self.attempt("recover", by=by, m={"sign": sign, "box": box, "user": user})

    @rule(data=draws, kind=st.sampled_from(["open", "private", "group"]))
    def make_channel(self, data: st.DataObject, kind: str) -> None:
        self.attempt("chan", by=self.peer(data), chan=data.draw(st.sampled_from(CHANNELS)), kind=kind)

    @rule(data=draws)
    def add_to_channel(self, data: st.DataObject) -> None:
        chan = self.known(data, self.naive.channels()[3:], CHANNELS)
        by = self.peer(data)
        self.attempt("chan_add", by=by, chan=chan, who=data.draw(st.sampled_from([by, self.peer(data)])))

    @rule(data=draws)
    def remove_from_channel(self, data: st.DataObject) -> None:
        chan = self.known(data, self.naive.channels()[3:], CHANNELS)
        by = self.peer(data)
        self.attempt("chan_del", by=by, chan=chan, who=data.draw(st.sampled_from([by, self.peer(data)])))

    @rule(data=draws)
    def move(self, data: st.DataObject) -> None:
        self.attempt("broker", by=self.peer(data), bk=key("broker").public)

    @invariant()
    def peers_agree(self) -> None:
        end = self.naive.end
        assert set(self.roster.members) == set(self.naive.peers())
        assert {member.id for member in self.roster.active_members()} == self.naive.active(end)
        assert self.roster.owners == self.naive.owners(end)
        for peer in self.naive.peers():
            member = self.roster.members[PeerId(peer)]
            assert member.role == self.naive.role_given(
                peer, self.naive.end if member.active else member.revoked_seq or 0
            )
            assert (member.box, member.card_floor) == (self.naive.box(peer, end), self.naive.card_floor(peer))
        for user in (key(name).public for name in USER_NAMES):
            mine = {peer for peer in self.naive.active(end) if self.naive.user(peer) == user}
            assert self.roster.peers_of_user(UserId(user)) == mine

    @invariant()
    def invites_agree(self) -> None:
        end = self.naive.end
        for invite in self.naive.invites():
            known = self.roster.invites[InviteId(invite)]
            assert known.used == self.naive.used(invite, end)
            assert known.active != self.naive.is_closed(invite, end)

    @invariant()
    def channels_agree(self) -> None:
        end = self.naive.end
        if end < 0:
            return
        assert set(self.roster.channels) == set(self.naive.channels())
        for one in self.naive.channels():
            assert self.roster.channel_members(ChannelId(one)) == self.naive.channel_members(one, end)
            assert self.roster.channel_version(ChannelId(one)) == self.naive.version(one)

    def teardown(self) -> None:
        """The past agrees too, and the log can be stored and rebuilt."""
        for seq in range(self.naive.end + 1):
            for peer in self.naive.peers():
                assert self.roster.was_active_at(PeerId(peer), seq) == self.naive.is_active(peer, seq)
                for one in self.naive.channels():
                    was_in = peer in self.naive.channel_members(one, seq)
                    assert self.roster.was_in_channel_at(PeerId(peer), ChannelId(one), seq) == was_in
        assert vars(Roster.restore(self.entries)) == vars(self.roster)


TestRoster = RosterMachine.TestCase
TestRoster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
