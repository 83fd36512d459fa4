"""The roster as a chain: form, order, signatures, and the state that it adds up to (docs/spec/roster.md)."""

import json
from contextlib import suppress
from typing import Any

import pytest

from claudemesh.crypto.statements import encode, sign_bytes
from claudemesh.errors import BadSignature, Malformed, RosterRefused
from claudemesh.protocol import limits
from claudemesh.protocol import roster as roster_module
from claudemesh.protocol.roster import (
    EVERYONE,
    GENERAL,
    SPACE,
    Entry,
    Relation,
    Roster,
    SignedEntry,
    entry_digest,
    sign_entry,
    verify_signatures,
)
from claudemesh.types import ZERO_DIGEST
from tests.rosters import START, Log, box, channel, family, key, keys_of, user_of


def _changed(entry: Entry, **fields: Any) -> Entry:
    """The same entry with other fields, signed anew by whoever signed it and is known by name."""
    body = json.loads(entry.b) | fields
    known = {key(name).public: key(name) for name in ("alice", "bob", "i", "eve", user_of("eve"))}
    raw = encode(body)
    return Entry(raw.decode(), {public: sign_bytes(known[public], "roster", raw) for public in entry.s})


def _code(roster: Roster, entry: Entry, now: int | None = None) -> str:
    """Why an entry is refused; the same whether its signatures were verified before its turn or not."""
    with pytest.raises((Malformed, BadSignature, RosterRefused)) as refusal:
        roster.apply(entry, now)
    with pytest.raises((Malformed, BadSignature, RosterRefused)) as refused_ahead:
        roster.apply(_verified(entry), now)
    assert refused_ahead.value.code == refusal.value.code
    return refusal.value.code


def _verified(entry: Entry) -> Entry | SignedEntry:
    with suppress(Malformed, BadSignature, RosterRefused):
        return verify_signatures(entry)
    return entry


# The chain


def test_mesh_id_is_the_hash_of_its_genesis() -> None:
    log = Log()

    assert log.roster.mesh == entry_digest(log.entries[0]) == log.roster.head == log.roster.digest_at(0)
    assert (log.roster.seq, log.roster.broker) == (0, key("broker").public)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"seq": 0}, "seq"),
        ({"seq": 2}, "seq"),
        ({"prev": "ab" * 32}, "prev"),
        ({"mesh": "ab" * 32}, "mesh"),
        ({"v": 2}, "field_type"),
        ({"seq": True}, "field_type"),
        ({"at": -1}, "field_type"),
        ({"op": "suite"}, "unknown_op"),
        ({"op": 7}, "unknown_op"),
        ({"note": "x"}, "field"),
        ({"kind": "secret"}, "field_type"),
        ({"chan": "AB" * 16}, "field_type"),
        ({"at": START - limits.CLOCK_SKEW_MS - 1}, "time_back"),
        ({"at": START + limits.FUTURE_ENTRY_MS + 1}, "future_entry"),
    ],
    ids=str,
)
def test_entry_that_does_not_follow_the_head_is_refused(fields: dict[str, Any], code: str) -> None:
    """An unknown operation or field stops this version instead of being skipped."""
    log = Log()
    entry = log.draft("chan", "alice", chan=channel("x"), kind="open")

    assert _code(log.roster, _changed(entry, **fields), START) == code
    assert log.roster.seq == 0


def test_date_is_bounded_only_where_a_clock_may_decide() -> None:
    """A verifier of an old log passes no clock, or a clock that has long passed the entries."""
    log = Log()
    entry = log.draft("chan", "alice", chan=channel("x"), kind="open", at=START + 10**9)

    checked = log.roster.check(entry, None)

    assert checked.body["at"] == START + 10**9


def test_date_at_the_edges_of_both_clocks_is_accepted() -> None:
    log = Log()
    early = log.draft("chan", "alice", chan=channel("x"), kind="open", at=START - limits.CLOCK_SKEW_MS)
    late = log.draft("chan", "alice", chan=channel("x"), kind="open", at=START + limits.FUTURE_ENTRY_MS)

    assert log.roster.check(early, START).seq == log.roster.check(late, START).seq == 1


def test_clock_of_the_log_never_goes_back() -> None:
    log = Log()

    log.append("chan", "alice", chan=channel("x"), kind="open", at=START - 1_000)

    assert log.roster.at == START


def test_entry_of_another_mesh_is_refused() -> None:
    """A valid admission cannot be spliced from one mesh into another (A02)."""
    log, other = Log(), Log("mallory")
    stranger = other.draft("chan", "mallory", chan=channel("x"), kind="open")

    assert _code(log.roster, stranger) in ("prev", "mesh")


def test_log_begins_with_a_genesis_and_has_no_second_one() -> None:
    log = Log()
    body = log.roster.next_body(
        "genesis", START, by=key("alice").public, m=keys_of("alice"), bk="00" * 32, nonce="00" * 16
    )
    second = sign_entry(body, key("alice"))
    orphan = Roster().next_body("chan", START, by=key("alice").public, chan=channel("x"), kind="open")

    assert _code(log.roster, second) == "genesis"
    assert _code(Roster(), sign_entry(orphan, key("alice"))) == "genesis"


def test_genesis_is_signed_by_the_owner_that_it_names() -> None:
    body = Roster().next_body(
        "genesis", START, by=key("eve").public, m=keys_of("alice"), bk=key("broker").public, nonce="00" * 16
    )

    assert _code(Roster(), sign_entry(body, key("eve"))) == "genesis"


def test_log_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_module, "MAX_LOG_ENTRIES", 2)
    log = Log()
    log.append("chan", "alice", chan=channel("x"), kind="open")

    assert _code(log.roster, log.draft("chan", "alice", chan=channel("y"), kind="open")) == "log_full"


def test_entry_is_checked_on_the_head_that_it_is_applied_to() -> None:
    """A sync between check and append must not let an entry through that the new head forbids."""
    log = Log()
    log.invite("alice", "i")
    racing = log.roster.check(log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve")), START)
    log.append("uninvite", "alice", inv=key("i").public)

    with pytest.raises(RosterRefused, match="prev"):
        log.roster.advance(racing)

    assert not log.is_active("eve")


def test_check_changes_nothing() -> None:
    log = Log()
    log.invite("alice", "i")
    head = log.roster.head

    log.roster.check(log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve")), START)

    assert (log.roster.head, log.roster.invites[key("i").public].used) == (head, 0)
    assert not log.is_active("eve")


# Form


@pytest.mark.parametrize("signatures", [0, 4])
def test_entry_has_one_to_three_signatures(signatures: int) -> None:
    log = Log()
    entry = log.draft("chan", "alice", chan=channel("x"), kind="open")

    assert _code(log.roster, Entry(entry.b, {str(n): "00" * 64 for n in range(signatures)})) == "entry_form"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "cj_syntax"),
        ("[]", "cj_top"),
        ('{"op":"chan" }', "cj_noncanon"),
        ('{"op":"ch\u00e4n"}', "cj_str"),
        ('{"op":"' + "x" * 17_000 + '"}', "cj_len"),
    ],
)
def test_entry_body_is_canonical(text: str, code: str) -> None:
    assert _code(Roster(), Entry(text, {key("alice").public: "00" * 64})) == code


def test_keys_of_a_peer_are_exactly_three() -> None:
    keys = keys_of("alice") | {"name": "alice"}
    body = Roster().next_body("genesis", START, by=key("alice").public, m=keys, bk="00" * 32, nonce="00" * 16)

    assert _code(Roster(), sign_entry(body, key("alice"))) == "field"


@pytest.mark.parametrize("url", ["", "other.example", "http://x/ws", "wss://", "wss://a b/ws", "wss://" + "x" * 500])
def test_broker_url_is_one_that_a_peer_can_dial(url: str) -> None:
    log = Log()

    assert _code(log.roster, log.draft("broker", "alice", bk=key("broker 2").public, url=url)) == "field_type"


# Signatures


def test_every_required_key_signs_and_no_other() -> None:
    """The invite proves possession, the peer its key and the user its identity; nobody adds a signature."""
    log = Log()
    log.invite("alice", "i")
    whole = log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve"))

    for missing in whole.s:
        partial = Entry(whole.b, {public: sig for public, sig in whole.s.items() if public != missing})
        assert _code(log.roster, partial) == "sig_missing"
    personal = log.draft("chan", "alice", "eve", chan=channel("x"), kind="open")
    assert _code(log.roster, personal) == "sig_extra"
    log.roster.apply(whole)


def test_signature_of_other_bytes_or_another_form_is_refused() -> None:
    log = Log()
    entry = log.draft("chan", "alice", chan=channel("x"), kind="open")
    public, signature = next(iter(entry.s.items()))

    altered = Entry(entry.b.replace("open", "group"), entry.s)
    assert _code(log.roster, altered) == "bad_sig"
    assert _code(log.roster, Entry(entry.b, {public: "00" * 64})) == "bad_sig"
    for form in ("", signature.upper(), signature[:-2], signature + "00", " " + signature[1:]):
        assert _code(log.roster, Entry(entry.b, {public: form})) == "sig_form"


def test_signatures_that_were_verified_ahead_are_not_more_than_the_required_ones() -> None:
    """Valid signatures are of no use by the wrong keys: which are required is decided in the entry's place."""
    log = Log()
    log.invite("alice", "i")
    whole = log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve"))
    stranger = log.draft("chan", "stranger", chan=channel("x"), kind="open")

    for missing in whole.s:
        partial = Entry(whole.b, {public: sig for public, sig in whole.s.items() if public != missing})
        with pytest.raises(BadSignature) as refusal:
            log.roster.apply(verify_signatures(partial))
        assert refusal.value.code == "sig_missing"
    with pytest.raises(RosterRefused):
        log.roster.apply(verify_signatures(stranger))
    log.roster.apply(verify_signatures(whole))
    assert log.is_active("eve")


@pytest.mark.parametrize("wrong", ["00" * 64, "", "AB" * 64])
def test_one_wrong_signature_among_three_fails_ahead(wrong: str) -> None:
    log = Log()
    log.invite("alice", "i")
    whole = log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve"))

    for public in whole.s:
        with pytest.raises(BadSignature):
            verify_signatures(Entry(whole.b, whole.s | {public: wrong}))


def test_signature_under_another_label_is_refused() -> None:
    """A signed card or message is never also a roster entry."""
    log = Log()
    entry = log.draft("chan", "alice", chan=channel("x"), kind="open")
    foreign = sign_bytes(key("alice"), "card", entry.b.encode())

    assert _code(log.roster, Entry(entry.b, {key("alice").public: foreign})) == "bad_sig"


def test_ghost_cannot_be_admitted_by_the_broker() -> None:
    """The broker knows every public key of the log and holds none of the secrets (A01)."""
    log = Log()
    log.invite("alice", "i")
    ghost = log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve"))
    forged = Entry(ghost.b, ghost.s | {key("i").public: sign_bytes(key("broker"), "roster", ghost.b.encode())})

    assert _code(log.roster, forged) == "bad_sig"


# What the log adds up to


def test_admission_makes_an_active_peer_with_the_invites_role() -> None:
    log = Log()
    log.invite("alice", "i", role="admin")

    log.admit("i", "bob")

    member = log.roster.member(key("bob").public)
    assert member is not None
    assert (member.box, member.user, member.role) == (box("bob").public, key(user_of("bob")).public, "admin")
    assert (member.since_seq, member.invite, member.active, member.card_floor) == (2, key("i").public, True, 0)
    assert log.roster.role_of(member.id) == "admin"
    assert [one.id for one in log.roster.active_members()] == [key("alice").public, key("bob").public]


def test_newcomers_are_found_without_a_look_at_those_before_them() -> None:
    """In the order of admission; who was removed since is not among them, and a change of role makes nobody new."""
    log = Log().with_member("bob")
    seen = log.roster.seq
    log.with_member("carol").with_member("dave").with_member("eve")
    log.append("role", "alice", who=key("bob").public, role="admin")
    log.append("revoke", "alice", who=key("dave").public, why="removed")

    assert [one.id for one in log.roster.admitted_since(seen)] == [key("carol").public, key("eve").public]
    assert log.roster.admitted_since(log.roster.seq) == []
    assert log.roster.admitted_since(-1) == log.roster.active_members()


def test_revoked_peer_keeps_its_place_in_the_past() -> None:
    """Needed to read what it sent or sealed before, never to let it send again."""
    log = family()
    bob = key("bob").public
    joined = log.roster.members[bob].since_seq

    revoked = log.append("revoke", "alice", who=bob, why="lost").seq

    assert not log.roster.is_active(bob)
    assert log.roster.role_of(bob) is None
    assert [log.roster.was_active_at(bob, seq) for seq in (joined - 1, joined, revoked - 1, revoked)] == [
        False,
        True,
        True,
        False,
    ]


def test_revocation_closes_the_invites_of_the_revoked() -> None:
    """A revoked admin cannot come back through a link that it made before (A26)."""
    log = family()
    log.invite("adam", "adam's link", uses=5)
    log.invite("alice", "alice's link")

    log.append("revoke", "alice", who=key("adam").public, why="removed")

    assert log.roster.invite_state(key("adam's link").public, log.now) == "revoked"
    assert log.roster.invite_state(key("alice's link").public, log.now) == "open"


def test_revocation_leaves_links_that_were_over_anyway_as_they_were() -> None:
    """Their holders are told why they are too late, which is not that somebody was removed since."""
    log = family()
    log.invite("adam", "spent")
    log.admit("spent", "eve")
    log.invite("adam", "over")
    log.now += limits.DAY_MS + limits.CLOCK_SKEW_MS + 1
    log.append("chan", "adam", chan=channel("x"), kind="open")

    log.append("revoke", "alice", who=key("adam").public, why="removed")

    assert log.roster.invite_state(key("spent").public, log.now) == "exhausted"
    assert log.roster.invite_state(key("over").public, log.now) == "expired"


def test_revoking_a_user_revokes_each_of_its_peers() -> None:
    log = family()
    log.device_link("bob", "device", uses=2)
    log.admit("device", "bob's phone", user=user_of("bob"))
    user = key(user_of("bob")).public
    assert log.roster.peers_of_user(user) == {key("bob").public, key("bob's phone").public}

    log.append("revoke", "alice", who=user, why="removed")

    assert log.roster.peers_of_user(user) == frozenset()
    assert log.roster.invite_state(key("device").public, log.now) == "revoked"


def test_rekey_replaces_the_box_key_and_voids_older_cards() -> None:
    log = family()

    seq = log.append("rekey", "bob", box=box("bob 2").public, cs=7).seq

    member = log.roster.members[key("bob").public]
    assert (member.box, member.card_floor, member.rekeyed_seq) == (box("bob 2").public, 7, seq)
    with pytest.raises(RosterRefused, match="rekey"):
        log.append("rekey", "bob", box=box("bob 3").public, cs=7)


def test_recovery_puts_one_new_owner_in_place_of_all_leaders() -> None:
    """A stolen owner device, its admins and its links are out; plain members stay (A33)."""
    log = Log(rec=key("recovery").public).with_member("bob").with_member("adam", role="admin")
    log.invite("alice", "i")
    log.append("chan", "bob", chan=channel("p"), kind="private")

    seq = log.append("recover", "recovery", "alice 2", m=keys_of("alice 2")).seq

    assert [log.is_active(peer) for peer in ("alice", "adam", "bob", "alice 2")] == [False, False, True, True]
    assert log.roster.owners == {key("alice 2").public}
    assert log.roster.admins == set()
    assert log.roster.invite_state(key("i").public, log.now) == "revoked"
    assert log.roster.channel_version(EVERYONE) == log.roster.channel_version(channel("p")) == seq


def test_move_names_the_new_broker_and_keeps_the_url_unless_given() -> None:
    log = Log()

    moved = log.append("broker", "alice", bk=key("b2").public, url="wss://b2.example/ws").seq
    log.append("broker", "alice", bk=key("b3").public)

    assert (log.roster.broker, log.roster.broker_url) == (key("b3").public, "wss://b2.example/ws")
    assert [log.roster.broker_at(seq) for seq in (-1, 0, moved, moved + 1)] == [
        None,
        key("broker").public,
        key("b2").public,
        key("b3").public,
    ]


def test_state_of_an_invite_is_what_its_holder_can_expect() -> None:
    log = Log()
    for name in ("open", "spent", "closed"):
        log.invite("alice", name)
    log.admit("spent", "bob")
    log.append("uninvite", "alice", inv=key("closed").public)
    end = log.now + limits.DAY_MS

    states = {name: log.roster.invite_state(key(name).public, log.now) for name in ("open", "spent", "closed", "none")}

    assert states == {"open": "open", "spent": "exhausted", "closed": "revoked", "none": "unknown"}
    assert log.roster.invite_state(key("open").public, end) == "open"
    assert log.roster.invite_state(key("open").public, end + 1) == "expired"


def test_an_invite_is_overdue_between_the_end_by_the_clock_and_the_end_by_the_log() -> None:
    """As long as the log's clock stands before the end, an admission that is dated back would be good (A04)."""
    log = Log()
    end = log.now + limits.DAY_MS
    for name in ("spent", "closed", "first", "second"):
        log.invite("alice", name, exp=end)
    log.admit("spent", "bob")
    log.append("uninvite", "alice", inv=key("closed").public)
    passed = end + limits.CLOCK_SKEW_MS

    before, after = log.roster.overdue_invites(passed), log.roster.overdue_invites(passed + 1)
    log.now = passed + 1
    log.append("uninvite", "alice", inv=key("first").public)

    assert before == []
    assert {invite.id for invite in after} == {key("first").public, key("second").public}
    assert log.roster.overdue_invites(passed + 1) == []


def test_an_invite_that_is_closed_after_its_end_has_expired() -> None:
    """Its holder is told that it came too late, not that somebody took the link back."""
    log = Log()
    log.invite("alice", "over")
    log.invite("alice", "taken back")

    log.append("uninvite", "alice", inv=key("taken back").public)
    log.now += limits.DAY_MS + limits.CLOCK_SKEW_MS + 1
    log.append("uninvite", "alice", inv=key("over").public)

    states = [log.roster.invite_state(key(name).public, log.now) for name in ("over", "taken back")]
    assert states == ["expired", "revoked"]


# Channels


def test_open_channels_share_one_scope_members_and_version() -> None:
    log = family()
    log.append("chan", "bob", chan=channel("o"), kind="open")
    log.append("chan", "bob", chan=channel("p"), kind="private")

    seq = log.append("revoke", "alice", who=key("carol").public, why="left").seq

    assert {log.roster.scope_of(one) for one in (EVERYONE, GENERAL, SPACE, channel("o"))} == {EVERYONE}
    assert log.roster.scope_of(channel("p")) == channel("p")
    everybody = {key(peer).public for peer in ("alice", "bob", "adam")}
    assert log.roster.channel_members(channel("o")) == log.roster.channel_members(EVERYONE) == everybody
    assert log.roster.channel_version(channel("o")) == log.roster.channel_version(GENERAL) == seq


@pytest.mark.parametrize(
    ("op", "fields", "touches"),
    [
        ("revoke", {"who": key("bob").public, "why": "lost"}, {"open", "with bob"}),
        ("invite", {}, set()),
        ("role", {"who": key("bob").public, "role": "admin"}, set()),
        ("broker", {"bk": key("b2").public}, set()),
        ("chan_add", {"chan": channel("with bob"), "who": key("carol").public}, {"with bob"}),
        ("chan_del", {"chan": channel("with bob"), "who": key("bob").public}, {"with bob"}),
        ("chan", {"chan": channel("new"), "kind": "open"}, set()),
    ],
)
def test_version_rises_with_each_change_of_a_channels_members(
    op: str, fields: dict[str, Any], touches: set[str]
) -> None:
    """The send rule rests on this: an epoch older than the version is not used."""
    log = family()
    log.append("chan", "alice", chan=channel("with bob"), kind="private")
    log.append("chan_add", "alice", chan=channel("with bob"), who=key("bob").public)
    log.append("chan", "alice", chan=channel("without bob"), kind="group")
    channels = {"open": EVERYONE, "with bob": channel("with bob"), "without bob": channel("without bob")}
    before = {name: log.roster.channel_version(one) for name, one in channels.items()}
    cosigners = ("new invite",) if op == "invite" else ()
    fields = log.invite_fields("new invite") if op == "invite" else fields

    seq = log.append(op, "alice", *cosigners, **fields).seq

    after = {name: log.roster.channel_version(one) for name, one in channels.items()}
    assert after == {name: seq if name in touches else version for name, version in before.items()}


def test_rekey_counts_as_a_membership_change_of_its_channels() -> None:
    log = family()
    log.append("chan", "bob", chan=channel("p"), kind="private")

    seq = log.append("rekey", "bob", box=box("bob 2").public, cs=1).seq

    assert log.roster.channel_version(channel("p")) == log.roster.channel_version(EVERYONE) == seq


def test_channel_remembers_who_was_in_it_and_when() -> None:
    """Added, removed and added again: each span counts by itself."""
    log = family()
    c, bob = channel("p"), key("bob").public
    born = log.append("chan", "alice", chan=c, kind="private").seq
    first = log.append("chan_add", "alice", chan=c, who=bob).seq
    out = log.append("chan_del", "bob", chan=c, who=bob).seq
    again = log.append("chan_add", "alice", chan=c, who=bob).seq
    gone = log.append("revoke", "alice", who=bob, why="lost").seq

    spans = [log.roster.was_in_channel_at(bob, c, seq) for seq in (born, first, out, again, gone)]

    assert spans == [False, True, False, True, False]
    assert log.roster.was_in_channel_at(key("alice").public, c, born)
    assert not log.roster.was_in_channel_at(key("alice").public, c, born - 1)
    assert log.roster.channel_members(c) == {key("alice").public}


def test_peer_is_in_an_open_channel_from_its_own_or_the_channels_beginning() -> None:
    log = Log()
    born = log.append("chan", "alice", chan=channel("o"), kind="open").seq
    log.with_member("bob")
    joined = log.roster.members[key("bob").public].since_seq

    assert log.roster.was_in_channel_at(key("alice").public, channel("o"), born)
    assert not log.roster.was_in_channel_at(key("alice").public, channel("o"), born - 1)
    assert not log.roster.was_in_channel_at(key("bob").public, channel("o"), joined - 1)
    assert log.roster.was_in_channel_at(key("bob").public, channel("o"), joined)
    assert not log.roster.was_in_channel_at(key("bob").public, channel("none"), joined)


# Heads and storage


def test_other_heads_are_known_ahead_or_in_conflict() -> None:
    log = family()
    roster = log.roster

    assert roster.relate(roster.seq, roster.head) is Relation.KNOWN
    assert roster.relate(1, roster.digest_at(1)) is Relation.KNOWN
    assert roster.relate(1, roster.digest_at(2)) is Relation.CONFLICT
    assert roster.relate(roster.seq + 1, ZERO_DIGEST) is Relation.AHEAD
    assert roster.relate(-1, ZERO_DIGEST) is Relation.KNOWN


def test_digest_of_an_entry_that_does_not_exist_is_an_error() -> None:
    log = Log()

    for seq in (-1, 1):
        with pytest.raises(IndexError):
            log.roster.digest_at(seq)


def test_stored_log_is_restored_to_the_same_state() -> None:
    log = family()
    log.append("chan", "bob", chan=channel("p"), kind="private")
    log.append("broker", "alice", bk=key("b2").public, url="wss://b2.example/ws")

    restored = Roster.restore(log.entries)

    assert vars(restored) == vars(log.roster)


def test_damaged_store_is_not_restored() -> None:
    """The chain finds an altered, missing or exchanged entry without any signature."""
    log = family()
    altered = [*log.entries]
    altered[1] = Entry(altered[1].b.replace('"uses":1', '"uses":9'), altered[1].s)

    for damaged in (altered, log.entries[1:], [log.entries[0], *log.entries[2:]]):
        with pytest.raises(RosterRefused):
            Roster.restore(damaged)


def test_restore_still_applies_the_rules() -> None:
    log = Log().with_member("bob")
    forbidden = log.draft("broker", "bob", bk=key("b2").public)

    with pytest.raises(RosterRefused, match="denied"):
        Roster.restore([*log.entries, forbidden])
