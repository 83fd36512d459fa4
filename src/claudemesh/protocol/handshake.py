"""The signed statements of the handshake: challenge, hello, claim, acknowledgement (docs/spec/wire.md §3).

The nonce makes a hello fresh, the broker's key and address in it make it useless anywhere else.
"""

from typing import Any, Final, NamedTuple

from claudemesh.crypto import statements
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import HandshakeRefused
from claudemesh.protocol.limits import HANDSHAKE_SKEW_MS, MINUTE_MS
from claudemesh.types import BrokerId, Digest, InviteId, MeshId, PeerId, UnixMillis

_CHALLENGE: Final[dict[str, Any]] = {"v": (1,), "bk": "hex32", "nonce": "hex32", "at": "int", "origin": str}
_HELLO: Final[dict[str, Any]] = {
    "v": (1,),
    "mesh": "hex32",
    "member": "hex32",
    "sess": "hex32",
    "nonce": "hex32",
    "bk": "hex32",
    "origin": str,
    "at": "int",
    "rs": "int",
    "rh": "hex32",
    "cn": "hex16",
}
_CLAIM: Final[dict[str, Any]] = {
    "v": (1,),
    "inv": "hex32",
    "mid": "hex16",
    "nonce": "hex32",
    "bk": "hex32",
    "origin": str,
    "at": "int",
}
_ACK: Final[dict[str, Any]] = {"v": (1,), "at": "int", "cn": "hex16", "mesh": "hex32", "sess": "hex32", "audit": dict}


class ChallengeBody(NamedTuple):
    """What a hello must repeat: the broker's key, its address as this link dialled it, a 32-byte nonce."""

    broker: BrokerId
    nonce: str
    origin: str


class HelloBody(NamedTuple):
    """A verified hello: who connects, and how far its roster goes."""

    mesh: MeshId
    member: PeerId
    roster_seq: int
    roster_head: Digest
    client_nonce: str


def make_challenge(broker: SigningKey, origin: str, nonce: bytes, now: UnixMillis) -> Statement:
    """Sign a challenge for the address that the peer dialled; `nonce` is 32 random bytes."""
    body = {"v": 1, "bk": broker.public, "nonce": nonce.hex(), "at": now, "origin": origin}
    return statements.sign_statement(body, "challenge", broker)


def open_challenge(statement: Statement, broker: BrokerId | None, dialled: str, now: UnixMillis) -> ChallengeBody:
    """Check a challenge as the peer that dialled.

    Args:
        broker: The key that the roster names; None only while joining or creating, when the key is
            compared with the roster afterwards.

    Raises:
        HandshakeRefused: `broker_key`; `origin` when the challenge was made for another address; `clock` when this
            machine's clock or the broker's is wrong: honest messages would then be refused for their time.
    """
    if broker is not None and statement.k != broker:
        raise HandshakeRefused("broker_key")
    body = statements.open_statement(statement, "challenge")
    statements.check_fields(body, _CHALLENGE)
    if body["bk"] != statement.k:
        raise HandshakeRefused("broker_key")
    if body["origin"] != dialled:
        raise HandshakeRefused("origin", f"dialled {dialled}, the challenge is for {body['origin']}")
    _check_clock(now - body["at"])
    return ChallengeBody(body["bk"], body["nonce"], body["origin"])


def make_hello(
    challenge: ChallengeBody,
    session: SessionKeys,
    mesh: MeshId,
    member: PeerId,
    roster_seq: int,
    roster_head: Digest,
    client_nonce: bytes,
    now: UnixMillis,
) -> Statement:
    """Sign a hello as the session; `client_nonce` is 16 random bytes."""
    body = {
        "v": 1,
        "mesh": mesh,
        "member": member,
        "sess": session.sign.public,
        "nonce": challenge.nonce,
        "bk": challenge.broker,
        "origin": challenge.origin,
        "at": now,
        "rs": roster_seq,
        "rh": roster_head,
        "cn": client_nonce.hex(),
    }
    return statements.sign_statement(body, "hello", session.sign)


def open_hello(statement: Statement, attestation: Attestation, challenge: ChallengeBody) -> HelloBody:
    """Check a hello as the broker; that its member is active in the mesh is the caller's to check."""
    body = statements.open_statement(statement, "hello", attestation.session)
    statements.check_fields(body, _HELLO)
    if (body["mesh"], body["member"], body["sess"]) != (attestation.mesh, attestation.member, attestation.session):
        raise HandshakeRefused("hello")
    _check_binding(body, challenge)
    return HelloBody(body["mesh"], body["member"], body["rs"], body["rh"], body["cn"])


def make_claim(challenge: ChallengeBody, invite: SigningKey, mesh_prefix: str, now: UnixMillis) -> Statement:
    """Prove, as the holder of a link, the invite's key; `mesh_prefix` is 32 hex digits."""
    body = {
        "v": 1,
        "inv": invite.public,
        "mid": mesh_prefix,
        "nonce": challenge.nonce,
        "bk": challenge.broker,
        "origin": challenge.origin,
        "at": now,
    }
    return statements.sign_statement(body, "claim", invite)


def open_claim(statement: Statement, challenge: ChallengeBody) -> tuple[InviteId, str]:
    """Check a claim as the broker; returns the invite and the mesh prefix."""
    body = statements.open_statement(statement, "claim")
    statements.check_fields(body, _CLAIM)
    if body["inv"] != statement.k:
        raise HandshakeRefused("hello")
    _check_binding(body, challenge)
    return body["inv"], body["mid"]


def make_ack(
    broker: SigningKey, hello: HelloBody, session: str, audit_n: int, audit_head: Digest, now: UnixMillis
) -> Statement:
    """Acknowledge a hello: binds the peer's nonce and the audit chain's end."""
    body = {
        "v": 1,
        "at": now,
        "cn": hello.client_nonce,
        "mesh": hello.mesh,
        "sess": session,
        "audit": {"n": audit_n, "head": audit_head},
    }
    return statements.sign_statement(body, "ack", broker)


def open_ack(
    statement: Statement, broker: BrokerId, mesh: MeshId, session: str, client_nonce: bytes
) -> tuple[UnixMillis, int, Digest]:
    """Check an acknowledgement; returns the broker's clock and the audit chain's length and head."""
    body = statements.open_statement(statement, "ack", broker)
    statements.check_fields(body, _ACK)
    statements.check_fields(body["audit"], {"n": "int", "head": "hex32"})
    if (body["mesh"], body["sess"], body["cn"]) != (mesh, session, client_nonce.hex()):
        raise HandshakeRefused("hello_binding")
    return body["at"], body["audit"]["n"], body["audit"]["head"]


def _check_clock(ahead_ms: int) -> None:
    """Two peers that each differ by at most this from the broker accept each other's times."""
    if abs(ahead_ms) > HANDSHAKE_SKEW_MS:
        direction = "ahead of" if ahead_ms > 0 else "behind"
        minutes = round(abs(ahead_ms) / MINUTE_MS)
        raise HandshakeRefused("clock", f"this machine's clock is {minutes} minutes {direction} the broker's")


def _check_binding(body: Body, challenge: ChallengeBody) -> None:
    if (body["nonce"], body["bk"], body["origin"]) != (challenge.nonce, challenge.broker, challenge.origin):
        raise HandshakeRefused("hello_binding")
