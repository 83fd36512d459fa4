"""The vector families of statements, links, replay and backup. Inputs are chosen here, outputs computed."""

import json
from typing import Any

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.backup import seal_backup
from claudemesh.crypto.envelope import padded_length
from claudemesh.crypto.identity import (
    ATTESTATION_MAX_MS,
    MAX_DEAD_SESSIONS,
    attest,
    issue_card,
    safety_number,
    session_keys,
)
from claudemesh.crypto.invite import InviteLink
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.types import BoxId, Digest, MeshId, PeerId, SessionId, UnixMillis

Vector = dict[str, Any]

PEER = primitives.signing_key(bytes(range(32)))
OTHER = primitives.signing_key(bytes(range(1, 33)))
SESSION_ENTROPY = bytes(range(100, 164))
SESSION = session_keys(SESSION_ENTROPY)
RECIPIENT = primitives.box_key(bytes(range(32, 64)))
MESH = MeshId("5a" * 32)
NONCE = bytes(range(24))
AT = UnixMillis(1_800_000_000_000)
DAY = 86_400_000


def ok(**fields: Any) -> Vector:
    return {"error": None, "code": None, **fields}


def refused(error: str, code: str, **fields: Any) -> Vector:
    return {"error": error, "code": code, **fields}


def document(about: str, source: str, cases: list[Vector], **shared: Any) -> Vector:
    return {"about": about, "source": source, **shared, "cases": cases}


def plain(statement: Statement) -> Vector:
    return {"b": statement.b, "k": statement.k, "s": statement.s}


# Statements


def canonical() -> Vector:
    accepted = [
        b"{}",
        b'{"a":1}',
        b'{"a":2,"b":1}',
        b'{"a":[],"b":{},"c":[{"d":[true,false]}]}',
        b'{"a":9007199254740991,"b":-9007199254740991}',
        b'{"a":"printable ASCII ~!#$%&()*+,-./"}',
        b'{"a_1":"","aa":0}',
        b'{"a":[[[[[1]]]]]}',
        b'{"a":"' + b"x" * 1024 + b'"}',
    ]
    malformed = [
        ("duplicate key", b'{"a":1,"a":1}', "cj_dup"),
        ("whitespace", b'{"a": 1}', "cj_noncanon"),
        ("unsorted keys", b'{"b":1,"a":2}', "cj_noncanon"),
        ("float", b'{"a":1.0}', "cj_type"),
        ("exponent", b'{"a":1e3}', "cj_type"),
        ("null", b'{"a":null}', "cj_type"),
        ("integer too large", b'{"a":9007199254740992}', "cj_int"),
        ("not a number", b'{"a":NaN}', "cj_type"),
        ("escape", b'{"a":"\\u0041"}', "cj_noncanon"),
        ("array on top", b"[1]", "cj_top"),
        ("upper-case key", b'{"A":1}', "cj_key"),
        ("minus zero", b'{"a":-0}', "cj_noncanon"),
        ("letter outside ASCII", '{"a":"é"}'.encode(), "cj_str"),
        ("nested too deeply", b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "cj_depth"),
        ("lone surrogate", b'{"a":"\\ud800"}', "cj_str"),
        ("empty", b"", "cj_syntax"),
        ("no UTF-8", b"\xff", "cj_syntax"),
        ("trailing newline", b'{"a":1}\n', "cj_noncanon"),
        ("leading zero", b'{"a":01}', "cj_syntax"),
        ("escaped quote", b'{"a":"\\""}', "cj_str"),
        ("escaped backslash", b'{"a":"\\\\"}', "cj_str"),
        ("integer too small", b'{"a":-9007199254740992}', "cj_int"),
        ("empty key", b'{"":1}', "cj_key"),
        ("key of 25 characters", b'{"' + b"a" * 25 + b'":1}', "cj_key"),
        ("seven levels", b'{"a":[[[[[[1]]]]]]}', "cj_depth"),
        ("string of 1025 characters", b'{"a":"' + b"x" * 1025 + b'"}', "cj_str"),
        ("byte order mark", b'\xef\xbb\xbf{"a":1}', "cj_syntax"),
        ("two values", b"{}{}", "cj_syntax"),
        ("longer than 16384 bytes", b'{"a":[' + b",".join([b"1"] * 8200) + b"]}", "cj_len"),
    ]
    cases = [ok(name=f"accepted {number}", raw=raw.hex(), value=json.loads(raw)) for number, raw in enumerate(accepted)]
    cases += [refused("Malformed", code, name=name, raw=raw.hex()) for name, raw, code in malformed]
    return document("Bytes that are, or are not, a canonical statement; `raw` is hex.", "statements.md §1", cases)


def signatures() -> Vector:
    body = b'{"n":5,"op":"x","v":1}'
    cases: list[Vector] = []
    for context in sorted(statements.CONTEXTS):
        signature = statements.sign_bytes(PEER, context, body)
        cases.append(ok(name=context, context=context, public=PEER.public, body=body.hex(), signature=signature))
    good = cases[0]
    flipped = f"{int(good['signature'][:2], 16) ^ 1:02x}" + good["signature"][2:]
    bad: list[tuple[str, str, Vector]] = [
        ("bad_sig", "another label", {"context": cases[1]["context"]}),
        ("bad_sig", "another body", {"body": (body + b" ").hex()}),
        ("bad_sig", "another signer", {"public": OTHER.public}),
        ("bad_sig", "a flipped bit", {"signature": flipped}),
        ("bad_sig", "a low-order signer", {"public": "00" * 32}),
        ("sig_form", "upper-case hex", {"signature": good["signature"].upper()}),
        ("sig_form", "too short", {"signature": good["signature"][:-2]}),
        ("sig_form", "empty", {"signature": ""}),
    ]
    for code, name, changes in bad:
        cases.append({**good, **changes, "name": name, "error": "BadSignature", "code": code})
    about = "Ed25519 over `claudemesh/1/` ‖ context ‖ 00 ‖ body. `seed` makes `public`."
    return document(about, "statements.md §2", cases, seed=bytes(range(32)).hex())


def digests() -> Vector:
    inputs = [("roster", b'{"n":5,"op":"x","v":1}'), ("sth", b"{}"), ("att", b"{}"), ("slot", b""), ("audit", b"{}")]
    cases = [
        ok(name=f"{context} {number}", context=context, body=body.hex(), digest=statements.digest(context, body))
        for number, (context, body) in enumerate(inputs)
    ]
    return document("SHA-256 over `claudemesh/1/` ‖ context ‖ 00 ‖ body.", "statements.md §2", cases)


def derivation() -> Vector:
    inputs = [
        (bytes(32), "chan", bytes(16)),
        (bytes(16), "invite-sign", b""),
        (bytes(16), "invite-user", b""),
        (bytes(range(32)), "backup", b"CMB2"),
        (bytes(range(32)), "commit", b"{}"),
    ]
    cases = [
        ok(
            name=label,
            key=key.hex(),
            label=label,
            context=context.hex(),
            derived=statements.derive(key, label, context).hex(),
        )
        for key, label, context in inputs
    ]
    about = "HMAC-SHA256(key, `claudemesh/1/kdf/` ‖ label ‖ 00 ‖ context)."
    return document(about, "statements.md §2", cases)


def padding() -> Vector:
    lengths = [0, 1, 1279, 1280, 1281, 1344, 1345, 2047, 2048, 2049, 5000, 65_535, 65_536, 65_537, 524_288, 10**6]
    cases = [ok(name=str(length), length=length, padded=padded_length(length)) for length in lengths]
    return document("Padmé with a floor of 1280 bytes.", "envelope.md §3", cases)


# Identities


def attestations() -> Vector:
    genuine = json.loads(attest(PEER, MESH, SESSION, AT, DAY).b)

    def case(name: str, error: str | None, code: str | None, signer: SigningKey = PEER, **changes: Any) -> Vector:
        statement = statements.sign_statement(genuine | changes, "att", signer)
        return {"error": error, "code": code, "name": name, "statement": plain(statement)}

    cases = [
        case("every capability", None, None),
        case("one capability", None, None, caps=["dm"]),
        case("no capability", None, None, caps=[]),
        case("seven days", None, None, exp=AT + ATTESTATION_MAX_MS),
        case("longer than seven days", "EnvelopeRefused", "att_ttl", exp=AT + ATTESTATION_MAX_MS + 1),
        case("ends when it begins", "EnvelopeRefused", "att_ttl", exp=AT),
        case("signed by another peer", "EnvelopeRefused", "att", signer=OTHER),
        case("signed by its own session", "EnvelopeRefused", "att", signer=SESSION.sign),
        case("unknown capability", "Malformed", "field_type", caps=["root"]),
        case("capabilities not sorted", "Malformed", "field_type", caps=["dm", "chan"]),
        case("capability named twice", "Malformed", "field_type", caps=["dm", "dm"]),
        case("unknown field", "Malformed", "field", alias="alice"),
        case("unknown version", "Malformed", "field_type", v=2),
    ]
    altered = dict(cases[1]["statement"], b=cases[0]["statement"]["b"])
    cases.append(refused("BadSignature", "bad_sig", name="body of another", statement=altered))
    return document("A peer's word that a session speaks for it.", "statements.md §3", cases)


def cards() -> Vector:
    dead = [SessionId(f"{number:064x}") for number in range(2)]
    issued = issue_card(PEER, MESH, 3, BoxId(RECIPIENT.public), AT, 7, Digest("33" * 32), tuple(dead))
    genuine = json.loads(issued.b)

    def case(name: str, error: str | None, code: str | None, signer: SigningKey = PEER, **changes: Any) -> Vector:
        statement = statements.sign_statement(genuine | changes, "card", signer)
        return {"error": error, "code": code, "name": name, "statement": plain(statement)}

    cases = [
        case("two dead sessions", None, None),
        case("no dead session", None, None, dead=[]),
        case("64 dead sessions", None, None, dead=dead[:1] * MAX_DEAD_SESSIONS),
        case("65 dead sessions", "Malformed", "field_type", dead=dead[:1] * (MAX_DEAD_SESSIONS + 1)),
        case("a dead session that is no key", "Malformed", "field_type", dead=["alice"]),
        case("signed by another peer", "Malformed", "stmt", signer=OTHER),
        case("negative number", "Malformed", "field_type", cs=-1),
        case("missing head", "Malformed", "field_type", rh=""),
        case("display name", "Malformed", "field", alias="alice"),
    ]
    swapped = dict(cases[0]["statement"], b=cases[0]["statement"]["b"].replace(RECIPIENT.public, "11" * 32))
    cases.append(refused("BadSignature", "bad_sig", name="box key swapped", statement=swapped))
    return document("A peer's current box key.", "statements.md §4", cases)


def safety_numbers() -> Vector:
    pairs = [(PEER.public, OTHER.public), (OTHER.public, PEER.public), (PEER.public, PEER.public)]
    cases = [
        ok(name=f"pair {number}", one=one, other=other, number=safety_number(PeerId(one), PeerId(other)))
        for number, (one, other) in enumerate(pairs)
    ]
    return document("Thirty digits that two people compare.", "statements.md §5", cases)


# Links


def links() -> Vector:
    seed, user_seed, prefix = bytes(range(16)), bytes(range(16, 32)), "5a" * 16
    plain = InviteLink("wss://broker.example/ws", prefix, seed)
    text = plain.text()
    secret = text.partition("#")[2]
    written = [
        ("open", plain),
        ("personal", InviteLink("wss://broker.example/ws", prefix, seed, user_seed)),
        ("with a port", InviteLink("wss://broker.example:7900/ws", prefix, seed)),
        ("without TLS", InviteLink("ws://127.0.0.1:7900/ws", prefix, seed)),
        ("on a Unix socket", InviteLink("unix:///tmp/mesh.sock", prefix, seed)),
        ("with labels", InviteLink("wss://broker.example/ws", prefix, seed, None, "my team", "Zoë")),
        ("with a name for the joiner", InviteLink("wss://broker.example/ws", prefix, seed, None, "team", "", "bob")),
        ("secret that ends with an underscore", InviteLink("wss://broker.example/ws", prefix, seed[:15] + b"?")),
    ]
    repaired = [
        ("spaces around", f"  {text}\n"),
        ("wrapped lines", text[:30] + "\r\n  " + text[30:]),
        ("angle brackets", f"<{text}>"),
        ("end of a sentence", f"({text})."),
        ("quotation marks", f"“{text}”"),
        ("emphasis", f"**_{text}_**"),
        ("web form", f"https://broker.example/j#{secret}"),
        ("slash before the fragment", f"ic://broker.example/j/#{secret}"),
    ]
    damaged = [
        ("empty", ""),
        ("no fragment", "ic://broker.example/j"),
        ("no scheme", f"broker.example/j#{secret}"),
        ("other scheme", f"ftp://broker.example/j#{secret}"),
        ("cut short", text[:-1]),
        ("one too many", text + "A"),
        ("character outside base64url", text[:-1] + "/"),
        ("unknown version", "ic://broker.example/j#" + "A" * 44),
        ("kind of the other length", "ic://broker.example/j#AQ" + "A" * 64),
        ("host with a user", f"ic://me@broker.example/j#{secret}"),
    ]
    cases = [ok(name=name, text=link.text(), link=_link(link), written=True) for name, link in written]
    cases += [ok(name=name, text=one, link=_link(plain), written=False) for name, one in repaired]
    cases += [refused("LinkRefused", "link_form", name=name, text=one) for name, one in damaged]
    return document("Links as people pass them on; `written` marks the one form that is written.", "invite.md", cases)


def _link(link: InviteLink) -> Vector:
    user = link.user_key()
    return {
        "broker_url": link.broker_url,
        "mesh_prefix": link.mesh_prefix,
        "seed": link.seed.hex(),
        "user_seed": link.user_seed.hex() if link.user_seed else None,
        "mesh_label": link.mesh_label,
        "inviter_label": link.inviter_label,
        "joiner_label": link.joiner_label,
        "invite_key": link.invite_key().public,
        "user_key": user.public if user else None,
    }


# Replay and backup


def replay() -> Vector:
    def case(name: str, *steps: tuple[int, int | None]) -> Vector:
        told = [{"counter": counter, "gap": gap, "code": "replay" if gap is None else None} for counter, gap in steps]
        return {"name": name, "steps": told}

    cases = [
        case("in order", (1, 0), (2, 0), (3, 0)),
        case("repeated", (1, 0), (1, None), (2, 0), (2, None), (1, None)),
        case("gap, then late arrival", (1, 0), (4, 2), (2, 0), (3, 0), (3, None)),
        case("first message missing", (3, 2), (1, 0), (2, 0)),
        case("oldest inside the window", (1025, 1024), (2, 0), (1, None)),
        case("below the window", (5000, 4999), (3976, None), (3977, 0), (3977, None)),
        case("jump of exactly one window", (1, 0), (1025, 1023), (1, None), (2, 0)),
        case("largest counter", (1, 0), (2**53 - 1, 2**53 - 3), (1, None), (2**53 - 2, 0)),
        case("zero and negative", (0, None), (-1, None), (1, 0)),
    ]
    return document("Counters of one stream; `gap` null means refused.", "envelope.md §6", cases)


def backups() -> Vector:
    passphrase, config = b"correct horse battery", b'{"identity":{}}'
    sealed = seal_backup(config, passphrase, bytes(range(40)), operations=1, memory_bytes=8 << 20)
    hostile = [
        ("other magic", "Malformed", "backup_magic", b"CMB1" + sealed[4:]),
        ("cut inside the header", "Malformed", "backup_magic", sealed[:51]),
        ("too many passes", "Malformed", "backup_params", sealed[:4] + (11).to_bytes(4, "big") + sealed[8:]),
        ("no pass", "Malformed", "backup_params", sealed[:4] + bytes(4) + sealed[8:]),
        ("too much memory", "Malformed", "backup_params", sealed[:8] + b"\xff\xff\xff\xff" + sealed[12:]),
        ("too little memory", "Malformed", "backup_params", sealed[:8] + (8191).to_bytes(4, "big") + sealed[12:]),
        ("flipped bit in the salt", "Unopenable", "secretbox_open", sealed[:12] + b"\xff" + sealed[13:]),
        ("flipped bit in the content", "Unopenable", "secretbox_open", sealed[:-1] + bytes((sealed[-1] ^ 1,))),
    ]
    cases = [ok(name="opens", sealed=sealed.hex(), passphrase=passphrase.hex(), config=config.hex())]
    cases += [
        refused(error, code, name=name, sealed=raw.hex(), passphrase=passphrase.hex())
        for name, error, code, raw in hostile
    ]
    wrong = refused("Unopenable", "secretbox_open", name="wrong passphrase", sealed=sealed.hex(), passphrase=b"x".hex())
    about = "A sealed configuration. `entropy`, 1 pass and 8 MiB make `sealed` of the first case."
    return document(about, "backup.md", [*cases, wrong], entropy=bytes(range(40)).hex())
