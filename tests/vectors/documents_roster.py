"""The vector families of the roster: one log with every operation, entries that it refuses, heads, gossip."""

import json
from typing import Any

from claudemesh.crypto.statements import encode, sign_bytes, sign_statement
from claudemesh.protocol.heads import sign_head
from claudemesh.protocol.limits import CLOCK_SKEW_MS, DAY_MS, FUTURE_ENTRY_MS
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import Digest, MeshId
from tests.rosters import START, Log, box, channel, key, keys_of, user_of

Vector = dict[str, Any]
GROUP, PRIVATE, OPEN = (channel(name) for name in ("group", "private", "open"))


def story() -> Log:
    """A mesh from its foundation to its recovery; every operation occurs."""
    log = Log("alice", rec=key("recovery").public)
    log.invite("alice", "team", uses=3, dev=2)
    log.admit("team", "bob")
    log.admit("team", "carol")
    log.with_member("adam", role="admin")
    log.invite("alice", "for dave", user=key(user_of("dave")).public)
    log.admit("for dave", "dave", user=user_of("dave"))
    log.device_link("bob", "bob's link", uses=2)
    log.admit("bob's link", "bob's phone", user=user_of("bob"))
    log.append("chan", "bob", chan=GROUP, kind="group")
    log.append("chan", "bob", chan=PRIVATE, kind="private")
    log.append("chan", "carol", chan=OPEN, kind="open")
    log.append("chan_add", "carol", chan=GROUP, who=key("carol").public)
    log.append("chan_add", "bob", chan=PRIVATE, who=key("dave").public)
    log.append("chan_del", "dave", chan=PRIVATE, who=key("dave").public)
    log.append("rekey", "carol", box=box("carol 2").public, cs=4)
    log.append("role", "alice", who=key("carol").public, role="admin")
    log.invite("carol", "carol's link")
    log.append("uninvite", "adam", inv=key("carol's link").public)
    log.append("revoke", "bob's phone", who=key("bob").public, why="stolen")
    log.append("revoke", "alice", who=key(user_of("dave")).public, why="removed")
    log.append("broker", "alice", bk=key("broker 2").public, url="wss://other.example/ws")
    log.now += DAY_MS
    log.append("recover", "recovery", "alice 2", m=keys_of("alice 2"))
    log.append("broker", "alice 2", bk=key("broker 3").public)
    return log


def _plain(entry: Entry) -> Vector:
    return {"b": entry.b, "s": entry.s}


def state_of(roster: Roster) -> Vector:
    """Everything that a log adds up to, as JSON."""
    return {
        "mesh": roster.mesh,
        "seq": roster.seq,
        "head": roster.head,
        "at": roster.at,
        "broker": roster.broker,
        "broker_url": roster.broker_url,
        "recovery": roster.recovery,
        "members": [
            {
                "id": member.id,
                "box": member.box,
                "user": member.user,
                "role": member.role,
                "since_seq": member.since_seq,
                "invite": member.invite,
                "active": member.active,
                "revoked_seq": member.revoked_seq,
                "card_floor": member.card_floor,
            }
            for member in roster.members.values()
        ],
        "invites": [
            {
                "id": invite.id,
                "issuer": invite.issuer,
                "role": invite.role,
                "uses": invite.uses,
                "used": invite.used,
                "expires_at": invite.expires_at,
                "user": invite.user,
                "state": roster.invite_state(invite.id, roster.at),
            }
            for invite in roster.invites.values()
        ],
        "channels": [
            {
                "id": one.id,
                "kind": one.kind,
                "creator": one.creator,
                "members": sorted(roster.channel_members(one.id)),
                "version": roster.channel_version(one.id),
                "scope": roster.scope_of(one.id),
            }
            for one in roster.channels.values()
        ],
        "device_uses_left": {user: roster.device_uses_left(user) for user in roster.users},
    }


def roster_log() -> Vector:
    log = story()
    cases = [
        {"name": json.loads(entry.b)["op"], "entry": _plain(entry), "digest": log.roster.digest_at(seq)}
        for seq, entry in enumerate(log.entries)
    ]
    return {
        "about": "One log with every operation, entry by entry, and the state that it adds up to.",
        "source": "roster.md §1 to §4",
        "state": state_of(log.roster),
        "cases": cases,
    }


def roster_refused() -> Vector:
    log = Log("alice").with_member("bob")
    log.invite("alice", "i", uses=2)
    log.append("chan", "bob", chan=PRIVATE, kind="private")
    cases = [*_misplaced(log), *_missigned(log), *_denied(log)]
    return {
        "about": "Entries that the log `entries` refuses; `now` bounds their date, `detail` names the rule.",
        "source": "roster.md §1 to §3",
        "now": log.now,
        "entries": [_plain(entry) for entry in log.entries],
        "cases": cases,
    }


def _case(name: str, error: str, code: str, entry: Entry, detail: str | None = None) -> Vector:
    return {"error": error, "code": code, "detail": detail, "name": name, "entry": _plain(entry)}


def _resigned(entry: Entry, **fields: Any) -> Entry:
    raw = encode(json.loads(entry.b) | fields)
    return Entry(raw.decode(), {key("alice").public: sign_bytes(key("alice"), "roster", raw)})


def _misplaced(log: Log) -> list[Vector]:
    good = log.draft("chan", "alice", chan=OPEN, kind="open")
    late = START + FUTURE_ENTRY_MS + 1
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        ("gap in the log", "RosterRefused", "seq", {"seq": log.roster.seq + 2}),
        ("entry of the past", "RosterRefused", "seq", {"seq": log.roster.seq}),
        ("another head", "RosterRefused", "prev", {"prev": "ab" * 32}),
        ("another mesh", "RosterRefused", "mesh", {"mesh": "ab" * 32}),
        ("dated back", "RosterRefused", "time_back", {"at": START - CLOCK_SKEW_MS - 1}),
        ("dated ahead", "RosterRefused", "future_entry", {"at": late}),
        ("unknown operation", "RosterRefused", "unknown_op", {"op": "suite"}),
        ("unknown field", "Malformed", "field", {"note": "x"}),
        ("unknown version", "Malformed", "field_type", {"v": 2}),
        ("unknown kind", "Malformed", "field_type", {"kind": "secret"}),
    ]
    cases = [_case(name, error, code, _resigned(good, **fields)) for name, error, code, fields in rows]
    second = log.draft("genesis", "alice", m=keys_of("alice"), bk=key("broker").public, nonce="00" * 16)
    cases.append(_case("second genesis", "RosterRefused", "genesis", second))
    cases.append(_case("no signature", "RosterRefused", "entry_form", Entry(good.b, {})))
    cases.append(_case("spaces in the body", "Malformed", "cj_noncanon", Entry(good.b.replace(":", ": "), good.s)))
    return cases


def _missigned(log: Log) -> list[Vector]:
    admit = log.draft("admit", "i", "eve", user_of("eve"), m=keys_of("eve"))
    cases = []
    for name, public in [
        ("invite", key("i").public),
        ("peer", key("eve").public),
        ("user", key(user_of("eve")).public),
    ]:
        others = {signer: signature for signer, signature in admit.s.items() if signer != public}
        cases.append(_case(f"not signed by the {name}", "BadSignature", "sig_missing", Entry(admit.b, others)))
        forged = Entry(admit.b, others | {public: sign_bytes(key("mallory"), "roster", admit.b.encode())})
        cases.append(_case(f"forged for the {name}", "BadSignature", "bad_sig", forged))
    extra = log.draft("chan", "alice", "bob", chan=OPEN, kind="open")
    cases.append(_case("one signature too many", "BadSignature", "sig_extra", extra))
    return cases


def _denied(log: Log) -> list[Vector]:
    bob, alice, eve = key("bob").public, key("alice").public, keys_of("eve")
    rows: list[tuple[str, str, str, tuple[str, ...], dict[str, Any]]] = [
        ("rank", "broker", "bob", (), {"bk": key("broker 2").public}),
        ("rank", "role", "bob", (), {"who": bob, "role": "admin"}),
        ("rank", "revoke", "bob", (), {"who": alice, "why": "removed"}),
        ("rank", "chan_add", "alice", (), {"chan": PRIVATE, "who": alice}),
        ("inactive", "chan", "eve", (), {"chan": OPEN, "kind": "open"}),
        ("last_owner", "revoke", "alice", (), {"who": alice, "why": "left"}),
        ("last_owner", "role", "alice", (), {"who": alice, "role": "member"}),
        ("own_devices_only", "invite", "bob", ("j",), log.invite_fields("j")),
        ("uses", "invite", "alice", ("j",), log.invite_fields("j", uses=1001)),
        ("uses", "invite", "alice", ("j",), log.invite_fields("j", uses=2, role="admin")),
        ("exp", "invite", "alice", ("j",), log.invite_fields("j", exp=START)),
        ("dev", "invite", "alice", ("j",), log.invite_fields("j", dev=6)),
        ("key_reuse", "invite", "alice", ("i",), log.invite_fields("i")),
        ("invite_exhausted", "admit", "bob's invite", ("eve", user_of("eve")), {"m": eve}),
        ("no_grant", "admit", "j", ("eve", user_of("eve")), {"m": eve}),
        ("key_reuse", "admit", "i", ("bob", user_of("bob")), {"m": keys_of("bob")}),
        ("rekey", "rekey", "bob", (), {"box": box("bob").public, "cs": 1}),
        ("recovery", "recover", "recovery", ("alice 2",), {"m": keys_of("alice 2")}),
        ("chan_exists", "chan", "bob", (), {"chan": PRIVATE, "kind": "group"}),
        ("chan_open", "chan_add", "alice", (), {"chan": "0" * 32, "who": bob}),
    ]
    return [
        _case(f"{op}: {detail}", "RosterRefused", "denied", log.draft(op, by, *cosigners, **fields), detail)
        for detail, op, by, cosigners, fields in rows
    ]


def _moved() -> Log:
    log = Log("alice").with_member("bob")
    log.append("broker", "alice", bk=key("broker 2").public)
    return log


def heads() -> Vector:
    log = _moved()
    mesh, end = MeshId(str(log.roster.mesh)), log.roster.seq
    rows: list[tuple[str, str, int, str, str | None]] = [
        ("the new broker at the move", "broker 2", end, log.roster.head, "current"),
        ("the old broker's last act", "broker", end, log.roster.head, "current"),
        ("a shorter log", "broker 2", 1, log.roster.digest_at(1), "shorter"),
        ("another entry", "broker 2", 1, "ab" * 32, "rewritten"),
        ("a longer log", "broker 2", end + 1, "ab" * 32, "longer"),
        ("the old broker beyond its last act", "broker", end + 1, "ab" * 32, None),
        ("the old broker about the past", "broker", 1, log.roster.digest_at(1), None),
        ("a stranger", "mallory", end, log.roster.head, None),
    ]
    cases = []
    for name, signer, seq, head, standing in rows:
        statement = sign_head(mesh, seq, Digest(head), log.now, key(signer))
        cases.append(_head_case(name, statement, standing))
    genuine = json.loads(sign_head(mesh, end, log.roster.head, log.now, key("broker 2")).b)
    cases.append(
        _head_case("another mesh", sign_statement(genuine | {"mesh": "11" * 32}, "sth", key("broker 2")), None)
    )
    return {
        "about": "Signed heads for the log `entries`, which moves from one broker to another with its last entry.",
        "source": "roster.md §5",
        "entries": [_plain(entry) for entry in log.entries],
        "cases": cases,
    }


def _head_case(name: str, statement: Any, standing: str | None) -> Vector:
    refused = standing is None
    return {
        "error": "Malformed" if refused else None,
        "code": "stmt" if refused else None,
        "name": name,
        "statement": {"b": statement.b, "k": statement.k, "s": statement.s},
        "standing": standing,
    }


def gossip() -> Vector:
    log = _moved()
    mesh, end = MeshId(str(log.roster.mesh)), log.roster.seq
    rows: list[tuple[str, int, str, str | None, bool, str]] = [
        ("equal head", end, log.roster.head, "broker 2", False, "accept"),
        ("prefix without a signature", 1, log.roster.digest_at(1), None, False, "accept"),
        ("ahead", end + 1, "ab" * 32, "broker 2", False, "sync"),
        ("ahead without a signature", end + 1, "ab" * 32, None, False, "sync"),
        ("still ahead, signed", end + 1, "ab" * 32, "broker 2", True, "withheld"),
        ("still ahead, not signed", end + 1, "ab" * 32, None, True, "unproven_roster_claim"),
        ("still ahead, signed by the sender", end + 1, "ab" * 32, "bob", True, "unproven_roster_claim"),
        ("conflict, signed", 1, "ab" * 32, "broker 2", False, "fork"),
        ("conflict at the move, signed by the old broker", end, "ab" * 32, "broker", False, "fork"),
        ("conflict in the past, signed by the old broker", 1, "ab" * 32, "broker", True, "unproven_roster_claim"),
        ("conflict, not signed", 1, "ab" * 32, None, True, "unproven_roster_claim"),
    ]
    cases = []
    for name, seq, head, signer, synced, verdict in rows:
        signature = sign_head(mesh, seq, Digest(head), log.now, key(signer)).s if signer else ""
        header = {"rs": seq, "rh": head, "ra": log.now, "rg": signature}
        cases.append({"name": name, "header": header, "synced": synced, "verdict": verdict})
    return {
        "about": "The head that a message names, against the log `entries`; `synced` means the log was just fetched.",
        "source": "roster.md §6",
        "entries": [_plain(entry) for entry in log.entries],
        "cases": cases,
    }
