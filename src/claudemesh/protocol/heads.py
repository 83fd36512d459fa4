"""Signed heads: the broker's word for how long the roster is, and what follows when heads differ.

Every message names its sender's head with the broker's signature on it, so a fork or a rollback is
exposed by the first message that crosses it. Source: docs/spec/roster.md §5, §6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Body, FieldType, Statement
from claudemesh.errors import BadSignature, Malformed
from claudemesh.protocol.roster import Relation, Roster
from claudemesh.types import BrokerId, Digest, MeshId, UnixMillis

_FIELDS: Final[dict[str, FieldType]] = {"v": (1,), "mesh": "hex32", "seq": "int", "head": "hex32", "at": "int"}


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The broker's statement that the roster of `mesh` ended at `seq` with `head` at the time `at`."""

    mesh: MeshId
    seq: int
    head: Digest
    at: UnixMillis
    signature: str
    """128 hex digits, or empty when a sender had none to show."""


class Gossip(Enum):
    """What a receiver does about the head that a message names."""

    ACCEPT = "accept"
    """It is this roster's head or an earlier one."""
    SYNC = "sync"
    """It is ahead: fetch the roster, then judge again."""
    FORK = "fork"
    """The broker signed another history: freeze, and keep the claim as proof."""
    WITHHELD = "withheld"
    """The broker signed entries that it does not hand over: retry, then freeze with the claim as proof."""
    UNPROVEN = "unproven_roster_claim"
    """Only the sender says so: drop this message and warn. A member must not be able to freeze others."""


class Standing(Enum):
    """How the broker's own head stands to the roster that was synced from it."""

    CURRENT = "current"
    SHORTER = "shorter"
    """It lost its tail, as after a restored backup: upload the missing entries; refused, it is a rollback."""
    REWRITTEN = "rewritten"
    """It signed another entry where this roster has one: freeze as a rollback."""
    LONGER = "longer"
    """It signed entries that it did not hand over: retry, then freeze as withheld."""


def sign_head(mesh: MeshId, seq: int, head: Digest, at: UnixMillis, broker: SigningKey) -> Statement:
    """State, as the broker, where the roster ends."""
    return statements.sign_statement(_body(mesh, seq, head, at), "sth", broker)


def open_head(statement: Statement, roster: Roster) -> SignedHead:
    """Verify a signed head as one for `roster`; how it stands to it is for `classify_head`.

    Raises:
        Malformed: It is of another mesh, or of a key that is not this roster's broker.
        BadSignature: The signature does not match.
    """
    body = statements.open_statement(statement, "sth")
    statements.check_fields(body, _FIELDS)
    if body["mesh"] != roster.mesh:
        raise Malformed("stmt", "a head of another mesh")
    if statement.k not in head_signers(roster, body["seq"]):
        raise Malformed("stmt", "a head signed by another key than the roster's broker")
    return SignedHead(body["mesh"], body["seq"], body["head"], body["at"], statement.s)


def head_signers(roster: Roster, seq: int) -> frozenset[BrokerId]:
    """The keys whose signature on a head at `seq` counts.

    The roster's broker; and for a roster that ends with a move to another one, also the broker
    before it, whose last act was to take that entry. A retired key counts for nothing else.
    """
    signers = {roster.broker}
    if seq == roster.seq:
        signers.add(roster.broker_at(seq - 1))
    return frozenset(signer for signer in signers if signer is not None)


def claimed_head(mesh: MeshId, header: Mapping[str, Any]) -> SignedHead:
    """The head that a message header names in its checked fields `rs`, `rh`, `ra` and `rg`."""
    return SignedHead(mesh, header["rs"], header["rh"], header["ra"], header["rg"])


def is_proven(claim: SignedHead, roster: Roster) -> bool:
    """Whether a broker key that counts for `roster` signed `claim`."""
    if claim.mesh != roster.mesh:
        return False
    raw = statements.encode(_body(claim.mesh, claim.seq, claim.head, claim.at))
    for signer in head_signers(roster, claim.seq):
        try:
            statements.verify_bytes(signer, "sth", raw, claim.signature)
        except BadSignature:
            continue
        return True
    return False


def judge_claim(claim: SignedHead, roster: Roster, *, synced: bool) -> Gossip:
    """Decide about the head that a message names.

    Args:
        synced: Whether the roster was fetched after the message arrived; a head that is still
            ahead then is one that the broker hides, or that was made up.
    """
    relation = roster.relate(claim.seq, claim.head)
    if relation is Relation.KNOWN:
        return Gossip.ACCEPT
    if relation is Relation.AHEAD and not synced:
        return Gossip.SYNC
    if not is_proven(claim, roster):
        return Gossip.UNPROVEN
    return Gossip.WITHHELD if relation is Relation.AHEAD else Gossip.FORK


def classify_head(head: SignedHead, roster: Roster) -> Standing:
    """Compare the broker's head with the roster after all of its entries were applied."""
    relation = roster.relate(head.seq, head.head)
    if relation is Relation.AHEAD:
        return Standing.LONGER
    if relation is Relation.CONFLICT:
        return Standing.REWRITTEN
    return Standing.CURRENT if head.seq == roster.seq else Standing.SHORTER


def _body(mesh: MeshId, seq: int, head: Digest, at: UnixMillis) -> Body:
    return {"v": 1, "mesh": mesh, "seq": seq, "head": head, "at": at}
