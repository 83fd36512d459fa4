"""Every rule of the roster, one row each (docs/spec/roster.md §3)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from claudemesh.errors import RosterRefused
from claudemesh.protocol import limits
from claudemesh.protocol.roster import Entry, Roster
from tests.rosters import Log, box, channel, family, key, keys_of, user_of

DAY = limits.DAY_MS


class Row(NamedTuple):
    claim: str
    build: Callable[[Log], Entry]
    reason: str | None
    """The detail of `denied`, or None when the rules allow the entry."""


def _invite(by: str, reason: str | None, claim: str, **changes: Any) -> Row:
    def build(log: Log) -> Entry:
        return log.draft("invite", by, "new invite", **log.invite_fields("new invite", **changes))

    return Row(f"invite: {claim}", build, reason)


def _op(op: str, by: str, reason: str | None, claim: str, **fields: Any) -> Row:
    return Row(f"{op}: {claim}", lambda log: log.draft(op, by, **fields), reason)


def _own(peer: str) -> str:
    return key(user_of(peer)).public


INVITE_ROWS = [
    _invite("alice", None, "an owner invites a member"),
    _invite("alice", None, "an owner invites an admin", role="admin"),
    _invite("alice", "rank", "an owner invites no other owner", role="owner"),
    _invite("alice", None, "an owner links an own device as owner", role="owner", user=_own("alice")),
    _invite("alice", None, "an owner invites one particular user", user=key("dave's user").public),
    _invite("adam", None, "an admin invites a member"),
    _invite("adam", "rank", "an admin invites no admin", role="admin"),
    _invite("adam", "rank", "an admin invites no owner", role="owner"),
    _invite("adam", "user", "an admin does not invite in another's name", user=key("dave's user").public),
    _invite("adam", None, "an admin links an own device as admin", role="admin", user=_own("adam")),
    _invite("adam", "rank", "an admin links no own device as owner", role="owner", user=_own("adam")),
    _invite("bob", "own_devices_only", "a member invites nobody"),
    _invite("bob", None, "a member links an own device", user=_own("bob")),
    _invite("bob", "own_devices_only", "a member links no device of another", user=_own("carol")),
    _invite("bob", "rank", "a member links no own device as admin", role="admin", user=_own("bob")),
    _invite("mallory", "inactive", "an outsider invites nobody"),
    _invite("alice", "uses", "an invite has at least one use", uses=0),
    _invite("alice", None, "an invite has up to 1000 uses", uses=1000),
    _invite("alice", "uses", "an invite has no more than 1000 uses", uses=1001),
    _invite("alice", "uses", "an admin's invite has one use", role="admin", uses=2),
    _invite("alice", None, "a link for one user has up to 5 uses", uses=5, user=_own("alice")),
    _invite("alice", "uses", "a link for one user has no more than 5 uses", uses=6, user=_own("alice")),
    _invite("bob", "uses", "a device link has no more than 5 uses", uses=6, user=_own("bob")),
    _invite("alice", "exp", "an invite ends after it begins", exp=0),
    _invite("alice", "exp", "an invite lasts no more than 90 days", exp=1_800_000_000_000 + 90 * DAY + 1),
    _invite("alice", None, "an invite lasts up to 90 days", exp=1_800_000_000_000 + 90 * DAY),
    _invite("alice", None, "an invite grants up to 5 device links", dev=5),
    _invite("alice", None, "an invite grants no device link", dev=0),
    _invite("alice", "dev", "an invite grants no more than 5 device links", dev=6),
    _invite("bob", "dev", "a device link grants no device links", dev=0, user=_own("bob")),
    _invite("alice", "key_reuse", "an invite key is used once", inv=key("bob's invite").public),
    _invite("alice", "key_reuse", "an invite key is no peer's key", inv=key("bob").public),
]

PEER_ROWS = [
    _op("revoke", "alice", None, "an owner removes a member", who=key("bob").public, why="removed"),
    _op("revoke", "alice", None, "an owner removes an admin", who=key("adam").public, why="removed"),
    _op("revoke", "adam", None, "an admin removes a member", who=key("bob").public, why="removed"),
    _op("revoke", "adam", "rank", "an admin does not remove an owner", who=key("alice").public, why="stolen"),
    _op("revoke", "bob", "rank", "a member removes no other member", who=key("carol").public, why="removed"),
    _op("revoke", "bob", "rank", "a member removes no other user", who=_own("carol"), why="removed"),
    _op("revoke", "bob", None, "a peer leaves", who=key("bob").public, why="left"),
    _op("revoke", "bob", None, "a user leaves with all its peers", who=_own("bob"), why="left"),
    _op("revoke", "alice", "last_owner", "the last owner stays", who=key("alice").public, why="left"),
    _op("revoke", "alice", "last_owner", "the last owner stays as a user", who=_own("alice"), why="left"),
    _op("revoke", "alice", "inactive", "nobody is removed who is not there", who=key("mallory").public, why="lost"),
    _op("revoke", "mallory", "inactive", "an outsider removes nobody", who=key("bob").public, why="removed"),
    _op("rekey", "bob", None, "a peer replaces its box key", box=box("bob 2").public, cs=1),
    _op("rekey", "bob", "rekey", "the new box key is another one", box=box("bob").public, cs=1),
    _op("rekey", "bob", "rekey", "the card floor rises", box=box("bob 2").public, cs=0),
    _op("rekey", "mallory", "inactive", "an outsider has no box key", box=box("mallory").public, cs=1),
    _op("role", "alice", None, "an owner promotes", who=key("bob").public, role="admin"),
    _op("role", "alice", None, "an owner makes another owner", who=key("bob").public, role="owner"),
    _op("role", "alice", None, "an owner stays owner", who=key("alice").public, role="owner"),
    _op("role", "adam", "rank", "an admin promotes nobody", who=key("bob").public, role="admin"),
    _op("role", "bob", "rank", "a member does not promote itself", who=key("bob").public, role="owner"),
    _op("role", "alice", "last_owner", "the last owner is not demoted", who=key("alice").public, role="admin"),
    _op("role", "alice", "inactive", "an outsider has no role", who=key("mallory").public, role="admin"),
    _op("broker", "alice", None, "an owner moves the mesh", bk=key("broker 2").public, url="wss://other.example/ws"),
    _op("broker", "adam", "rank", "an admin does not move the mesh", bk=key("broker 2").public),
    _op("broker", "broker", "rank", "the broker does not name its successor", bk=key("broker 2").public),
    _op("recover", "recovery", "recovery", "no recovery without a recovery key", m=keys_of("alice 2")),
    _op("uninvite", "alice", "no_grant", "only an invite is closed", inv=key("bob").public),
    _op("uninvite", "mallory", "inactive", "an outsider closes nothing", inv=key("bob's invite").public),
    _op("uninvite", "bob", "rank", "a member closes no other's invite", inv=key("bob's invite").public),
]

GROUP, PRIVATE, OPEN, GONE = (channel(name) for name in ("group", "private", "open", "gone"))

CHANNEL_ROWS = [
    _op("chan", "bob", None, "a member makes a channel", chan=channel("new"), kind="private"),
    _op("chan", "bob", "chan_exists", "a channel id is used once", chan=GROUP, kind="private"),
    _op("chan", "bob", "chan_exists", "a built-in channel is not made", chan="0" * 32, kind="open"),
    _op("chan", "mallory", "inactive", "an outsider makes no channel", chan=channel("new"), kind="open"),
    _op("chan_add", "carol", None, "anybody joins a group", chan=GROUP, who=key("carol").public),
    _op("chan_add", "bob", None, "the creator adds to a group", chan=GROUP, who=key("carol").public),
    _op("chan_add", "adam", None, "an admin adds to a group", chan=GROUP, who=key("carol").public),
    _op("chan_add", "carol", "rank", "a member adds no other to a group", chan=GROUP, who=key("adam").public),
    _op("chan_add", "bob", None, "the creator adds to a private channel", chan=PRIVATE, who=key("carol").public),
    _op("chan_add", "carol", "rank", "nobody joins a private channel", chan=PRIVATE, who=key("carol").public),
    _op("chan_add", "alice", "rank", "not even the owner does", chan=PRIVATE, who=key("alice").public),
    _op("chan_add", "adam", None, "an admin inside adds", chan=PRIVATE, who=key("carol").public),
    _op("chan_add", "dora", "rank", "a member inside does not add", chan=PRIVATE, who=key("carol").public),
    _op("chan_add", "bob", "chan_member", "nobody is added twice", chan=GROUP, who=key("bob").public),
    _op("chan_add", "bob", "inactive", "only active peers are added", chan=GROUP, who=key("mallory").public),
    _op("chan_add", "bob", "chan_open", "an open channel has everybody", chan=OPEN, who=key("carol").public),
    _op("chan_add", "bob", "chan_unknown", "the channel exists", chan=GONE, who=key("carol").public),
    _op("chan_add", "mallory", "inactive", "an outsider adds nobody", chan=GROUP, who=key("carol").public),
    _op("chan_del", "dora", None, "a peer leaves a private channel", chan=PRIVATE, who=key("dora").public),
    _op("chan_del", "bob", None, "the creator removes", chan=PRIVATE, who=key("dora").public),
    _op("chan_del", "alice", None, "an admin removes, also from outside", chan=PRIVATE, who=key("dora").public),
    _op("chan_del", "dora", "rank", "a member removes no other", chan=PRIVATE, who=key("bob").public),
    _op("chan_del", "bob", "chan_member", "only who is inside is removed", chan=GROUP, who=key("carol").public),
    _op("chan_del", "alice", "chan_open", "nobody leaves an open channel", chan=OPEN, who=key("bob").public),
    _op("chan_del", "mallory", "inactive", "an outsider removes nobody", chan=GROUP, who=key("bob").public),
]


def _family_with_channels() -> Log:
    log = family().with_member("dora")
    log.append("chan", "bob", chan=GROUP, kind="group")
    log.append("chan", "bob", chan=PRIVATE, kind="private")
    log.append("chan", "bob", chan=OPEN, kind="open")
    for peer in ("adam", "dora"):
        log.append("chan_add", "bob", chan=PRIVATE, who=key(peer).public)
    return log


def _outcome(roster: Roster, entry: Entry) -> str | None:
    try:
        roster.check(entry, None)
    except RosterRefused as refusal:
        return refusal.detail if refusal.code == "denied" else refusal.code
    return None


@pytest.mark.parametrize("row", INVITE_ROWS + PEER_ROWS, ids=lambda row: row.claim)
def test_rule_of_peers_and_invites(row: Row) -> None:
    """Alice owns, Adam is an admin, Bob and Carol are members, Mallory is nobody."""
    log = family()

    assert _outcome(log.roster, row.build(log)) == row.reason


@pytest.mark.parametrize("row", CHANNEL_ROWS, ids=lambda row: row.claim)
def test_rule_of_channels(row: Row) -> None:
    """Bob made the channels; Adam and Dora are in the private one."""
    log = _family_with_channels()

    assert _outcome(log.roster, row.build(log)) == row.reason


def _denied(log: Log, op: str, by: str, *cosigners: str, **fields: Any) -> str:
    at = fields.pop("at", None)
    entry = log.draft(op, by, *cosigners, at=at, **fields)
    with pytest.raises(RosterRefused) as refusal:
        log.roster.check(entry, None)
    assert refusal.value.code == "denied"
    return refusal.value.detail


def test_spent_invite_admits_nobody() -> None:
    """An invite admits as many peers as its issuer signed, whatever the broker wishes."""
    log = Log().with_member("bob")

    detail = _denied(log, "admit", "bob's invite", "eve", user_of("eve"), m=keys_of("eve"))

    assert detail == "invite_exhausted"


def test_closed_invite_admits_nobody() -> None:
    log = Log()
    log.invite("alice", "i")
    log.append("uninvite", "alice", inv=key("i").public)

    assert _denied(log, "admit", "i", "eve", user_of("eve"), m=keys_of("eve")) == "invite_revoked"
    assert _denied(log, "uninvite", "alice", inv=key("i").public) == "invite_revoked"


def test_unknown_invite_admits_nobody() -> None:
    log = Log()

    assert _denied(log, "admit", "i", "eve", user_of("eve"), m=keys_of("eve")) == "no_grant"


def test_expired_invite_admits_nobody_even_back_dated() -> None:
    """Neither a late date nor a false early one lets a joiner in once the log's own time has passed the end."""
    log = Log()
    log.invite("alice", "i")
    end = log.now + DAY
    log.now = end + 1
    late = _denied(log, "admit", "i", "eve", user_of("eve"), m=keys_of("eve"))
    log.append("chan", "alice", chan=channel("x"), kind="open", at=end + limits.CLOCK_SKEW_MS + 1)

    back_dated = _denied(log, "admit", "i", "eve", user_of("eve"), m=keys_of("eve"), at=end + 1)

    assert (late, back_dated) == ("invite_expired", "invite_expired")


def test_admission_in_time_is_accepted_although_the_log_is_slightly_ahead() -> None:
    """Another author's clock may run up to five minutes fast; the link still works until its end."""
    log = Log()
    log.invite("alice", "i")
    end = log.now + DAY
    log.append("chan", "alice", chan=channel("x"), kind="open", at=log.now)
    log.now = end + limits.CLOCK_SKEW_MS
    log.append("chan", "alice", chan=channel("y"), kind="open")
    log.now = end

    log.admit("i", "eve")

    assert log.is_active("eve")


def test_back_dated_admission_is_refused_by_the_clock_of_the_log() -> None:
    log = Log()
    log.invite("alice", "i")
    log.append("chan", "alice", chan=channel("x"), kind="open", at=log.now + limits.CLOCK_SKEW_MS + 1)
    entry = log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve"))

    with pytest.raises(RosterRefused, match="time_back"):
        log.roster.check(entry, None)


def test_peer_key_is_admitted_once_ever() -> None:
    """A revoked key does not come back, and an invite's key does not become a peer."""
    log = Log().with_member("bob")
    log.append("revoke", "alice", who=key("bob").public, why="lost")
    log.invite("alice", "i", uses=5)

    again = _denied(log, "admit", "i", "bob", user_of("bob"), m=keys_of("bob"))
    invite_as_peer = _denied(log, "admit", "i", user_of("x"), m=keys_of("i", user_of("x")))

    assert (again, invite_as_peer) == ("key_reuse", "key_reuse")


def test_link_for_one_user_admits_no_other() -> None:
    log = Log()
    log.invite("alice", "i", user=key("dave's user").public)

    assert _denied(log, "admit", "i", "eve", user_of("eve"), m=keys_of("eve")) == "user"

    log.admit("i", "dave", user="dave's user")
    assert log.is_active("dave")


def test_user_may_issue_as_many_device_uses_as_its_invite_grants() -> None:
    """The allowance is the user's, over all of its peers, and is not returned when a link is closed."""
    log = Log()
    log.invite("alice", "i", dev=3)
    log.admit("i", "bob")
    log.device_link("bob", "d1", uses=2)
    log.admit("d1", "phone", user=user_of("bob"))
    log.append("uninvite", "bob", inv=key("d1").public)
    mine = key(user_of("bob")).public
    too_many = log.invite_fields("d2", user=mine, uses=2)

    assert _denied(log, "invite", "phone", "d2", **too_many) == "device_allowance"

    log.device_link("phone", "d2", user=user_of("bob"))
    one_more = log.invite_fields("d3", user=mine)
    assert _denied(log, "invite", "bob", "d3", **one_more) == "device_allowance"


def test_device_link_raises_no_allowance() -> None:
    log = Log()
    log.invite("alice", "i", dev=1)
    log.admit("i", "bob")
    log.device_link("bob", "d1")

    log.admit("d1", "phone", user=user_of("bob"))

    assert log.roster.device_uses_left(key(user_of("bob")).public) == 0


def test_admin_links_devices_within_its_allowance_too() -> None:
    """Otherwise an admin could hand its rank to any number of others, as devices of its own."""
    log = Log()
    log.invite("alice", "i", role="admin", dev=1)
    log.admit("i", "adam")
    log.device_link("adam", "d1", role="admin")
    more = log.invite_fields("d2", role="admin", user=key(user_of("adam")).public)

    assert _denied(log, "invite", "adam", "d2", **more) == "device_allowance"


def test_owner_links_devices_without_an_allowance() -> None:
    log = Log()

    for index in range(3):
        log.device_link("alice", f"d{index}", uses=5)

    assert len(log.roster.invites) == 3


def test_issuer_has_64_open_invites() -> None:
    """Spent, closed and long expired invites make room; live ones do not."""
    log = Log()
    for index in range(limits.OPEN_INVITES_PER_ISSUER):
        log.invite("alice", f"i{index}")
    one_more = log.invite_fields("more")
    assert _denied(log, "invite", "alice", "more", **one_more) == "invite_limit"

    log.admit("i0", "bob")
    log.invite("alice", "after a spent one")
    assert _denied(log, "invite", "alice", "more", **one_more) == "invite_limit"
    log.append("uninvite", "alice", inv=key("i1").public)
    log.invite("alice", "after a closed one")
    assert _denied(log, "invite", "alice", "more", **one_more) == "invite_limit"

    log.now += DAY + limits.CLOCK_SKEW_MS + 1
    log.append("chan", "alice", chan=channel("x"), kind="open")
    log.invite("alice", "after expired ones")


def test_peer_creates_256_channels() -> None:
    log = Log()
    for index in range(limits.CHANNELS_PER_PEER):
        log.append("chan", "alice", chan=channel(str(index)), kind="group")

    assert _denied(log, "chan", "alice", chan=channel("more"), kind="open") == "chan_limit"


def test_anybody_closes_an_expired_invite() -> None:
    log = family()
    log.invite("alice", "i")
    before = _denied(log, "uninvite", "bob", inv=key("i").public)
    log.now += DAY + 1

    log.append("uninvite", "bob", inv=key("i").public)

    assert before == "rank"
    assert log.roster.invite_state(key("i").public, log.now) == "expired"


def test_admin_closes_a_members_invite_but_not_an_owners() -> None:
    log = family()
    log.device_link("bob", "bob's device")
    log.invite("alice", "alice's")
    owners = _denied(log, "uninvite", "adam", inv=key("alice's").public)

    log.append("uninvite", "adam", inv=key("bob's device").public)

    assert owners == "rank"


def test_peers_of_one_user_remove_each_other() -> None:
    """A stolen laptop is revoked from the phone; a member device does not revoke its user's admin device."""
    log = family()
    log.device_link("bob", "bob's device")
    log.admit("bob's device", "bob's phone", user=user_of("bob"))
    log.append("role", "alice", who=key("bob").public, role="admin")
    above = _denied(log, "revoke", "bob's phone", who=key("bob").public, why="stolen")
    log.append("role", "alice", who=key("bob").public, role="member")

    log.append("revoke", "bob's phone", who=key("bob").public, why="stolen")

    assert above == "rank"
    assert not log.is_active("bob")


def test_recovery_key_is_the_only_one_that_recovers() -> None:
    log = Log(rec=key("recovery").public)

    assert _denied(log, "recover", "alice", "alice 2", m=keys_of("alice 2")) == "recovery"
    assert _denied(log, "recover", "recovery", "alice", m=keys_of("alice")) == "key_reuse"
