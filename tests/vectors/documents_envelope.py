"""The vector family of direct messages: some that open, and some that a hostile sender or broker could make."""

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.envelope import padded_length, seal
from claudemesh.crypto.identity import attest
from claudemesh.crypto.primitives import SigningKey
from claudemesh.types import BoxId
from tests.vectors.documents import (
    AT,
    DAY,
    MESH,
    NONCE,
    OTHER,
    PEER,
    RECIPIENT,
    SESSION,
    SESSION_ENTROPY,
    Vector,
    document,
    ok,
    plain,
    refused,
)


def envelopes() -> Vector:
    attestation = attest(PEER, MESH, SESSION, AT, DAY)
    header: Vector = {
        "v": 1,
        "k": "dm",
        "mesh": MESH,
        "from": PEER.public,
        "sess": SESSION.sign.public,
        "to": OTHER.public,
        "kid": RECIPIENT.public,
        "n": 1,
        "id": "1d" * 16,
        "ts": AT,
        "prio": "next",
        "ct": "text/plain",
        "rs": 3,
        "rh": "33" * 32,
        "ra": AT,
        "rg": "",
        "cs": 1,
    }
    options = {"prio": "now", "re": "2e" * 16, "nb": AT + 1, "exp": AT + DAY, "intent": "request", "root": "3f" * 16}
    cases = []
    for name, fields, body in [
        ("short text", header, b"hello bob"),
        ("empty body", header, b""),
        ("every optional field", header | options | {"tos": "ab" * 32, "hop": 2}, "žluťoučký kůň".encode()),
        ("beyond the floor", header, b"x" * 1000),
    ]:
        sealed = seal(fields, body, SESSION, BoxId(RECIPIENT.public), NONCE)
        cases.append(ok(name=name, header=fields, body=body.hex(), ciphertext=sealed.ciphertext.hex()))
    cases += _refused_envelopes(header, bytes.fromhex(cases[0]["ciphertext"]))
    return document(
        "A direct message. `session_entropy` makes the session's keys, `recipient_secret` opens.",
        "envelope.md §1 to §4",
        cases,
        session_entropy=SESSION_ENTROPY.hex(),
        recipient_secret=RECIPIENT.secret.hex(),
        nonce=NONCE.hex(),
        attestation=plain(attestation),
    )


def _refused_envelopes(header: Vector, good: bytes) -> list[Vector]:
    def frame(raw: bytes, body: bytes = b"") -> bytes:
        return b"\x01" + len(raw).to_bytes(4, "big") + raw + len(body).to_bytes(4, "big") + body

    def signed(raw: bytes, signer: SigningKey = SESSION.sign, context: str = "dm") -> bytes:
        return raw + primitives.sign(signer.secret, statements.labelled(context, raw))

    def padded(raw: bytes) -> bytes:
        return raw + b"\x80" + b"\0" * (padded_length(len(raw) + 1) - len(raw) - 1)

    def boxed(plain: bytes) -> bytes:
        return primitives.box(plain, NONCE, RECIPIENT.public, SESSION.box.secret)

    whole = frame(statements.encode(header), b"hello bob")
    flipped = good[:100] + bytes((good[100] ^ 1,)) + good[101:]
    inside = [
        ("no padding mark", "Malformed", "pad", b"\0" * 1280),
        ("padding of another length", "Malformed", "pad", padded(signed(whole)) + b"\0"),
        ("plaintext instead of a frame", "Malformed", "pad", b"hello bob" + b" " * 1271),
        ("unknown frame version", "Malformed", "frame", padded(signed(b"\x02" + whole[1:]))),
        ("trailing byte", "Malformed", "frame", padded(signed(whole + b"x"))),
        ("header length beyond the frame", "Malformed", "frame", padded(signed(b"\x01\xff\xff\xff\xff" + whole[5:]))),
        ("header not canonical", "Malformed", "cj_noncanon", padded(signed(frame(b'{"v": 1}')))),
        (
            "header of a channel message",
            "Malformed",
            "field_type",
            padded(signed(frame(statements.encode(header | {"k": "ch"})))),
        ),
        ("unknown header field", "Malformed", "field", padded(signed(frame(statements.encode(header | {"x": 1}))))),
        ("signed by another session", "BadSignature", "bad_sig", padded(signed(whole, OTHER))),
        ("signed under another label", "BadSignature", "bad_sig", padded(signed(whole, context="ch"))),
    ]
    outside = [
        ("flipped bit", "Unopenable", "box_open", flipped),
        ("cut short", "Unopenable", "box_open", good[:-1]),
        ("plaintext", "Unopenable", "box_open", b"hello bob, this is not encrypted"),
        ("empty", "Unopenable", "box_open", b""),
    ]
    cases = [refused(error, code, name=name, ciphertext=boxed(plain).hex()) for name, error, code, plain in inside]
    return cases + [refused(error, code, name=name, ciphertext=raw.hex()) for name, error, code, raw in outside]
