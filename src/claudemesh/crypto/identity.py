"""Peer, session and user keys; cards and attestations (docs/spec/statements.md §3, §4)."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import BoxKey, SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import EnvelopeRefused, Malformed
from claudemesh.types import BoxId, Digest, MeshId, PeerId, SessionId, UnixMillis

CAPABILITIES: Final = ("bcast", "chan", "dm", "file", "sched", "state_w")
ATTESTATION_MAX_MS: Final = 7 * 86_400_000
MAX_DEAD_SESSIONS: Final = 64

_ATTESTATION_FIELDS: Final[dict[str, Any]] = {
    "v": (1,),
    "mesh": "hex32",
    "member": "hex32",
    "sess": "hex32",
    "sbox": "hex32",
    "caps": list,
    "iat": "int",
    "exp": "int",
}
_CARD_FIELDS: Final[dict[str, Any]] = {
    "v": (1,),
    "mesh": "hex32",
    "member": "hex32",
    "cs": "int",
    "box": "hex32",
    "at": "int",
    "rs": "int",
    "rh": "hex32",
    "dead": list,
}


class SessionKeys(NamedTuple):
    """The secret half of a session: made at each launch, held in memory only."""

    sign: SigningKey
    box: BoxKey

    @property
    def id(self) -> SessionId:
        return SessionId(self.sign.public)


@dataclass(frozen=True, slots=True)
class Attestation:
    """A peer's word that a session speaks for it, until `expires_at`, within `capabilities`."""

    mesh: MeshId
    member: PeerId
    session: SessionId
    box: BoxId
    capabilities: tuple[str, ...]
    issued_at: UnixMillis
    expires_at: UnixMillis
    digest: Digest
    """Names the attestation in envelopes."""


@dataclass(frozen=True, slots=True)
class Card:
    """A peer's current box key. The highest `number` wins; `dead` lists sessions ended early."""

    mesh: MeshId
    member: PeerId
    number: int
    box: BoxId
    issued_at: UnixMillis
    dead: tuple[SessionId, ...]


def session_keys(entropy: bytes) -> SessionKeys:
    """Make a session's keys from 64 random bytes."""
    return SessionKeys(primitives.signing_key(entropy[:32]), primitives.box_key(entropy[32:64]))


def attest(
    peer: SigningKey,
    mesh: MeshId,
    session: SessionKeys,
    issued_at: UnixMillis,
    lifetime_ms: int,
    capabilities: tuple[str, ...] = CAPABILITIES,
) -> Statement:
    """Sign, as the peer, that `session` may speak for it.

    Args:
        lifetime_ms: 1 to `ATTESTATION_MAX_MS`.
        capabilities: Subset of `CAPABILITIES`.
    """
    body = {
        "v": 1,
        "mesh": mesh,
        "member": peer.public,
        "sess": session.sign.public,
        "sbox": session.box.public,
        "caps": sorted(capabilities),
        "iat": issued_at,
        "exp": issued_at + lifetime_ms,
    }
    return statements.sign_statement(body, "att", peer)


def open_attestation(statement: Statement) -> Attestation:
    """Verify an attestation's form and signature; membership and time are the caller's to check.

    Raises:
        Malformed, BadSignature: As for any statement.
        EnvelopeRefused: `att` the signer is not the member; `att_ttl` it lasts too long.
    """
    body = statements.open_statement(statement, "att")
    statements.check_fields(body, _ATTESTATION_FIELDS)
    capabilities = body["caps"]
    known = all(isinstance(cap, str) and cap in CAPABILITIES for cap in capabilities)
    if not known or capabilities != sorted(set(capabilities)):
        raise Malformed("field_type", "caps")
    if statement.k != body["member"]:
        raise EnvelopeRefused("att", "signed by another key than its member")
    if not body["iat"] < body["exp"] <= body["iat"] + ATTESTATION_MAX_MS:
        raise EnvelopeRefused("att_ttl")
    return Attestation(
        mesh=body["mesh"],
        member=body["member"],
        session=body["sess"],
        box=body["sbox"],
        capabilities=tuple(capabilities),
        issued_at=body["iat"],
        expires_at=body["exp"],
        digest=statements.statement_digest(statement, "att"),
    )


def issue_card(
    peer: SigningKey,
    mesh: MeshId,
    number: int,
    box: BoxId,
    issued_at: UnixMillis,
    roster_seq: int,
    roster_head: Digest,
    dead: tuple[SessionId, ...] = (),
) -> Statement:
    """Sign the peer's card `number` (from 1, each higher than the one before)."""
    body = {
        "v": 1,
        "mesh": mesh,
        "member": peer.public,
        "cs": number,
        "box": box,
        "at": issued_at,
        "rs": roster_seq,
        "rh": roster_head,
        "dead": list(dead)[-MAX_DEAD_SESSIONS:],
    }
    return statements.sign_statement(body, "card", peer)


def open_card(statement: Statement) -> Card:
    """Verify a card's form and signature; that it is the newest, and of a member, is the caller's to check."""
    body = statements.open_statement(statement, "card")
    statements.check_fields(body, _CARD_FIELDS)
    dead = body["dead"]
    if len(dead) > MAX_DEAD_SESSIONS or not all(isinstance(one, str) and len(one) == 64 for one in dead):
        raise Malformed("field_type", "dead")
    if statement.k != body["member"]:
        raise Malformed("stmt", "a card is signed by its own member")
    return Card(body["mesh"], body["member"], body["cs"], body["box"], body["at"], tuple(dead))


def safety_number(one: PeerId, other: PeerId) -> str:
    """Thirty digits that two people compare by voice: the same for both, whichever asks.

    Returns:
        Six groups of five digits, separated by spaces.
    """
    low, high = sorted((one, other))
    raw = bytes.fromhex(statements.digest("safety", bytes.fromhex(low) + bytes.fromhex(high)))
    groups = (int.from_bytes(raw[index * 5 : index * 5 + 5], "big") % 100_000 for index in range(6))
    return " ".join(f"{group:05d}" for group in groups)
