"""The vector families of channels: epochs, their messages, and secrets that are handed on."""

from typing import Any

from claudemesh.crypto import channel_envelope, frames, primitives, statements
from claudemesh.crypto.epochs import NewEpoch, channel_key, make_epoch
from claudemesh.crypto.frames import Layout
from claudemesh.crypto.identity import attest
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.epoch_handover import share_history
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.types import BoxId, ChannelId
from tests.vectors.documents import AT, DAY, MESH, NONCE, OTHER, PEER, SESSION, SESSION_ENTROPY, Vector, ok, refused

SCOPE = ChannelId("0" * 32)
GENERAL = ChannelId("0" * 31 + "1")
ENTROPY = bytes(range(64))
LATER_ENTROPY = bytes(range(64, 128))
BOXES = [primitives.box_key(bytes((number,)) * 32) for number in (1, 2, 3)]
LOW_ORDER = BoxId("01" + "00" * 31)
DRAFT: Vector = {
    "v": 1,
    "mesh": MESH,
    "chan": SCOPE,
    "by": PEER.public,
    "rs": 7,
    "rh": "33" * 32,
    "ra": AT,
    "rg": "",
    "at": AT,
}


def _epoch(entropy: bytes = ENTROPY, **changes: Any) -> NewEpoch:
    boxes = [BoxId(box.public) for box in BOXES]
    return make_epoch(DRAFT | changes, SESSION, [*boxes, LOW_ORDER], entropy)


def _held(made: NewEpoch) -> HeldEpoch:
    return HeldEpoch(made.record, made.secret, AT)


def _statement(statement: Statement) -> Vector:
    return {"b": statement.b, "k": statement.k, "s": statement.s}


def _signed(body: Vector, signer: SigningKey = SESSION.sign, context: str = "epoch") -> Vector:
    return _statement(statements.sign_statement(body, context, signer))


# Epochs


def epochs() -> Vector:
    made = _epoch()
    record, (slot, of_another, _, useless) = _statement(made.statement), made.slots
    body, box = made.record.body, BOXES[0]

    def case(
        name: str, slot: str = slot, record: Vector = record, secret: bytes = box.secret, **outcome: Any
    ) -> Vector:
        return {"error": None, "code": None, "name": name, "record": record, "slot": slot, **outcome} | {
            "box_secret": secret.hex()
        }

    flipped = slot[:20] + ("A" if slot[20] != "A" else "B") + slot[21:]
    other_secret = _epoch(bytes(32) + ENTROPY[32:]).slots[0]
    cases = [
        case("first slot", id=made.record.id, secret_hex=made.secret.hex()),
        case("second slot", of_another, secret=BOXES[1].secret, id=made.record.id, secret_hex=made.secret.hex()),
        case("slot of another member", of_another, **refused("Unopenable", "stale_key")),
        case(
            "slot of another member under one's own name",
            slot[:8] + of_another[8:],
            **refused("Unopenable", "box_open"),
        ),
        case("altered slot", flipped, **refused("Unopenable", "box_open")),
        case("no slot", "", **refused("EpochRefused", "no_slot")),
        case("slot cut short", slot[:-1], **refused("EpochRefused", "no_slot")),
        case("slot that is not base64url", slot[:71] + "=", **refused("Malformed", "b64")),
        case("another secret than committed to", other_secret, **refused("EpochRefused", "epoch_commit")),
        case(
            "commitment to nothing", record=_signed(body | {"kc": "00" * 32}), **refused("EpochRefused", "epoch_commit")
        ),
        case("for another scope", record=_signed(body | {"chan": GENERAL}), **refused("EpochRefused", "epoch_commit")),
        case("by another peer", record=_signed(body | {"by": OTHER.public}), **refused("EpochRefused", "epoch_commit")),
        case("on another head", record=_signed(body | {"rh": "44" * 32}), **refused("EpochRefused", "epoch_commit")),
        case("signature of another key", record=record | {"k": OTHER.public}, **refused("BadSignature", "bad_sig")),
        case("signed as a card", record=_signed(body, context="card"), **refused("BadSignature", "bad_sig")),
        case("unknown field", record=_signed(body | {"x": 1}), **refused("Malformed", "field")),
        case(
            "no scope",
            record=_signed({name: body[name] for name in body if name != "chan"}),
            **refused("Malformed", "field"),
        ),
        case("version 2", record=_signed(body | {"v": 2}), **refused("Malformed", "field_type")),
    ]
    keys = [{"channel": one, "key": channel_key(made.secret, one).hex()} for one in (SCOPE, GENERAL)]
    return {
        "about": "`entropy` is the secret and the seed of `e`. `boxes` get `slots` in order; the last is of low order.",
        "source": "channels.md §2",
        "session_entropy": SESSION_ENTROPY.hex(),
        "entropy": ENTROPY.hex(),
        "draft": DRAFT,
        "boxes": [*(one.public for one in BOXES), LOW_ORDER],
        "slots": list(made.slots),
        "useless_slot": useless,
        "channel_keys": keys,
        "cases": cases,
    }


# Messages


def channel_envelopes() -> Vector:
    made = _epoch()
    key = channel_key(made.secret, GENERAL)
    header: Vector = {
        "v": 1,
        "k": "ch",
        "mesh": MESH,
        "from": PEER.public,
        "sess": SESSION.sign.public,
        "chan": GENERAL,
        "ep": made.record.id,
        "n": 1,
        "id": "1d" * 16,
        "ts": AT,
        "prio": "next",
        "ct": "text/plain",
        "rs": 7,
        "rh": "33" * 32,
        "ra": AT,
        "rg": "",
        "cs": 1,
    }
    options = {"re": "2e" * 16, "nb": AT + 1, "exp": AT + DAY, "intent": "request", "root": "3f" * 16, "hop": 2}
    cases = []
    for name, fields, body in [
        ("short text", header, b"hello all"),
        ("empty body", header, b""),
        ("every optional field", header | options, "žluťoučký kůň".encode()),
        ("beyond the floor", header, b"x" * 1000),
    ]:
        sealed = channel_envelope.seal(fields, body, SESSION, key, NONCE)
        cases.append(ok(name=name, header=fields, body=body.hex(), ciphertext=sealed.ciphertext.hex()))
    cases += _refused_messages(header, key, bytes.fromhex(cases[0]["ciphertext"]))
    return {
        "about": "A channel message under `key`, signed by the session.",
        "source": "channels.md §4",
        "session_entropy": SESSION_ENTROPY.hex(),
        "key": key.hex(),
        "nonce": NONCE.hex(),
        "attestation": _statement(attest(PEER, MESH, SESSION, AT, DAY)),
        "cases": cases,
    }


def _refused_messages(header: Vector, key: bytes, good: bytes) -> list[Vector]:
    def boxed(fields: Vector, signer: SigningKey = SESSION.sign, context: str = "ch") -> bytes:
        layout = Layout(context, dict.fromkeys(fields, object), {})
        return primitives.secretbox(frames.pack(layout, fields, b"hello all", signer), NONCE, key)

    direct = {name: value for name, value in header.items() if name not in ("chan", "ep")}
    other_key = channel_key(bytes(range(32)), SCOPE)
    outcomes = [
        ("signed by another session", "BadSignature", "bad_sig", boxed(header, OTHER)),
        ("signed as a direct message", "BadSignature", "bad_sig", boxed(header, context="dm")),
        ("header of a direct message", "Malformed", "field_type", boxed(header | {"k": "dm"})),
        ("a recipient instead of a channel", "Malformed", "field", boxed(direct | {"to": OTHER.public})),
        ("unknown header field", "Malformed", "field", boxed(header | {"tos": OTHER.public})),
        ("no padding mark", "Malformed", "pad", primitives.secretbox(b"\0" * 1280, NONCE, key)),
        (
            "key of another channel",
            "Unopenable",
            "secretbox_open",
            primitives.secretbox(b"\0" * 1280, NONCE, other_key),
        ),
        ("flipped bit", "Unopenable", "secretbox_open", good[:100] + bytes((good[100] ^ 1,)) + good[101:]),
        ("cut short", "Unopenable", "secretbox_open", good[:-1]),
        ("plaintext", "Unopenable", "secretbox_open", b"hello all, this is not encrypted"),
        ("empty", "Unopenable", "secretbox_open", b""),
    ]
    return [refused(error, code, name=name, ciphertext=raw.hex()) for name, error, code, raw in outcomes]


# Handing on


def histories() -> Vector:
    old, new = _epoch(), _epoch(LATER_ENTROPY, rs=9)
    body = share_history(_held(old), _held(new), NONCE)
    good = body["ct"]
    altered = {**body, "ct": ("A" if good[0] != "A" else "B") + good[1:]}
    cases = [
        ok(name="shared", body=body, id=old.record.id, secret=old.secret.hex()),
        refused(
            "EpochRefused", "epoch_commit", name="another record", body={**body, "old": old.record.body | {"rs": 8}}
        ),
        refused(
            "EpochRefused", "epoch", name="another scope", body={**body, "old": old.record.body | {"chan": GENERAL}}
        ),
        refused("Unopenable", "secretbox_open", name="altered", body=altered),
        refused("Unopenable", "secretbox_open", name="short nonce", body={**body, "n": "AAAA"}),
        refused("Unopenable", "no_epoch_key", name="under an epoch that is not held", body={**body, "new": "ab" * 32}),
        refused("Malformed", "b64", name="padded base64", body={**body, "ct": good[:-1] + "="}),
        refused("Malformed", "field", name="unknown field", body={**body, "x": 1}),
    ]
    return {
        "about": "The body of a cm/history; whoever holds `held` learns an older epoch.",
        "source": "channels.md §6",
        "held": {"record": _statement(new.statement), "secret": new.secret.hex()},
        "nonce": NONCE.hex(),
        "cases": cases,
    }


def repairs() -> Vector:
    made, foreign = _epoch(), _epoch(mesh="ab" * 32)
    elsewhere = {"b": foreign.record.body, "ep": foreign.record.id, "k": foreign.secret.hex()}
    body: Vector = {"b": made.record.body, "ep": made.record.id, "k": made.secret.hex()}
    cases = [
        ok(name="repaired", body=body),
        refused("EpochRefused", "epoch_commit", name="another secret", body={**body, "k": "00" * 32}),
        refused("EpochRefused", "epoch", name="another id", body={**body, "ep": "ab" * 32}),
        refused("EpochRefused", "epoch", name="another record", body={**body, "b": made.record.body | {"at": AT + 1}}),
        refused("EpochRefused", "epoch", name="another mesh", body=elsewhere),
        refused("Malformed", "field_type", name="short secret", body={**body, "k": "00"}),
        refused("Malformed", "field", name="unknown field", body={**body, "x": 1}),
    ]
    return {"about": "The body of a cm/slot.", "source": "channels.md §7", "mesh": MESH, "cases": cases}
