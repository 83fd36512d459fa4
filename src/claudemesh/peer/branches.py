"""Heads of the roster: ours, the broker's and those that peers named; and the branches of a mesh that is frozen.

A fork or a rollback is for a person to resolve: this module shows both sides and carries out the decision
(docs/spec/roster.md §7).
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from claudemesh.crypto import statements
from claudemesh.errors import AddressError, Malformed, RosterConflict, Unreachable, UsageError
from claudemesh.peer.config import LogPin
from claudemesh.peer.journal import branches as rows
from claudemesh.peer.journal.branches import Decision
from claudemesh.peer.parts import Parts
from claudemesh.protocol import heads
from claudemesh.protocol.heads import SignedHead
from claudemesh.protocol.roster import Relation
from claudemesh.protocol.roster_entry import read_entry
from claudemesh.types import BrokerId, Digest, PeerId, UnixMillis

MIN_PREFIX: Final = 8


@dataclass(frozen=True, slots=True)
class HeadClaim:
    """A head that a peer named in the newest message that came from it."""

    peer: PeerId
    address: str
    seq: int
    head: Digest
    signed_at: UnixMillis
    relation: Relation
    is_proven: bool
    """Whether the broker's signature is on it."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the histories that a broker signed."""

    seq: int
    head: Digest
    is_own: bool
    broker: BrokerId
    """Who signed the head."""
    signed_at: UnixMillis
    authors: tuple[str, ...]
    """Addresses of those who signed our newest entries; of a branch that is not ours only heads are known."""
    followers: tuple[str, ...]
    """Addresses of the peers that named it."""
    has_owner: bool
    """Whether an owner is among them, or is this peer."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What is known of the head of one mesh."""

    seq: int
    head: Digest
    """Ours."""
    broker: SignedHead | None
    """The newest head that the broker signed for us."""
    claims: tuple[HeadClaim, ...]
    frozen: str
    """The code of the freeze; empty while there is none."""
    frozen_at: UnixMillis
    branches: tuple[Branch, ...]
    """Ours first, while the mesh is frozen."""
    suggested: Digest | None
    """The head of the owner's branch; None where that is not known."""
    decisions: tuple[Decision, ...]


async def show_heads(parts: Parts) -> Heads:
    """Every head that is known, and what it says about the broker."""
    membership, mesh = parts.membership, parts.mesh
    named, frames, decisions = await parts.journal.read(
        lambda c: (rows.load_claims(c, mesh), rows.load_newest_frames(c, mesh), rows.load_decisions(c, mesh))
    )
    for peer, frame in frames.items():
        named.setdefault(peer, heads.claimed_head(mesh, _header(frame)))
    claims = tuple(_claim(parts, peer, claim) for peer, claim in named.items() if peer in membership.roster.members)
    frozen = membership.frozen
    branches = _branches(parts, claims) if frozen is not None else ()
    return Heads(
        seq=membership.roster.seq,
        head=membership.roster.head,
        broker=membership.head,
        claims=claims,
        frozen=frozen.code if frozen is not None else "",
        frozen_at=frozen.at if frozen is not None else UnixMillis(0),
        branches=branches,
        suggested=next((branch.head for branch in branches if branch.has_owner), None),
        decisions=tuple(decisions),
    )


async def trust(parts: Parts, prefix: str) -> tuple[Branch, bool]:
    """Carry out a person's decision for one branch of a frozen mesh; the proof is kept.

    Returns:
        The branch, and whether this peer has to be opened anew: it then fetches the roster from its genesis, and
        believes it only if it contains that head.

    Raises:
        UsageError: The mesh is not frozen.
        AddressError: `prefix` is not the beginning of exactly one of the heads.
    """
    shown = await show_heads(parts)
    if not shown.frozen:
        raise UsageError("usage", "the mesh is not frozen: there is nothing to decide")
    found = [one for one in shown.branches if len(prefix) >= MIN_PREFIX and one.head.startswith(prefix.lower())]
    if len(found) != 1:
        known = ", ".join(branch.head[:16] for branch in shown.branches)
        raise AddressError("unknown_address", f"{prefix[:16]} is none of the heads {known}")
    (branch,) = found
    others = [claim.peer for claim in shown.claims if claim.relation is not Relation.KNOWN and claim.is_proven]
    if branch.is_own:
        await parts.membership.resolve(branch.head, branch.seq, rejected=others)
        return branch, False
    if parts.membership.roster.relate(branch.seq, branch.head) is Relation.AHEAD:
        await parts.membership.resolve(branch.head, branch.seq, rejected=())
        if parts.uplink.is_open:
            with suppress(RosterConflict, Unreachable):  # frozen anew if the broker still hides it
                await parts.membership.catch_up(await parts.uplink.line(0))
        return branch, False
    await parts.membership.abandon(LogPin(branch.seq, branch.head))
    parts.save_progress()
    return branch, True


def _branches(parts: Parts, claims: Iterable[HeadClaim]) -> tuple[Branch, ...]:
    membership = parts.membership
    roster, frozen = membership.roster, membership.frozen
    assert frozen is not None
    other: dict[Digest, SignedHead] = {}
    for statement in frozen.proof:
        head = _signed(parts, statement.b, statement.s)
        if head is not None and roster.relate(head.seq, head.head) is not Relation.KNOWN:
            other[head.head] = head
    followers: dict[Digest, list[HeadClaim]] = {}
    own: list[HeadClaim] = []
    for claim in claims:
        if claim.relation is Relation.KNOWN:
            own.append(claim)
        elif claim.is_proven:
            followers.setdefault(claim.head, []).append(claim)
    first = min((head.seq for head in other.values()), default=roster.seq)
    own_at = membership.head.at if membership.head is not None else roster.at
    owns = parts.keyring.member in roster.owners
    mine = Branch(
        roster.seq,
        roster.head,
        True,
        roster.broker or BrokerId(""),
        own_at,
        _authors(parts, min(first, roster.seq)),
        tuple(claim.address for claim in own if claim.seq >= first),
        owns or any(claim.peer in roster.owners and claim.seq >= first for claim in own),
    )
    theirs = [
        Branch(
            head.seq,
            head.head,
            False,
            roster.broker or BrokerId(""),
            head.at,
            (),
            tuple(claim.address for claim in followers.get(head.head, [])),
            not owns and any(claim.peer in roster.owners for claim in followers.get(head.head, [])),
        )
        for head in other.values()
    ]
    return (mine, *theirs)


def _authors(parts: Parts, from_seq: int) -> tuple[str, ...]:
    """Who signed our entries from `from_seq` on."""
    roster, names = parts.membership.roster, parts.names
    bodies = [read_entry(entry) for entry in parts.membership.entries(from_seq)]
    authors = dict.fromkeys(body["m"]["sign"] if "m" in body else body["by"] for body in bodies)
    return tuple(names.address_of(author) for author in authors if author in roster.members)


def _signed(parts: Parts, body: str, signature: str) -> SignedHead | None:
    """A statement of a proof, which was verified before it was kept, as a head."""
    try:
        value = statements.decode(statements.text_bytes(body))
        return SignedHead(parts.mesh, value["seq"], value["head"], value["at"], signature)
    except (Malformed, KeyError):
        return None


def _claim(parts: Parts, peer: PeerId, claim: SignedHead) -> HeadClaim:
    roster = parts.membership.roster
    return HeadClaim(
        peer=peer,
        address=parts.names.address_of(peer),
        seq=claim.seq,
        head=claim.head,
        signed_at=claim.at,
        relation=roster.relate(claim.seq, claim.head),
        is_proven=heads.is_proven(claim, roster),
    )


def _header(frame: bytes) -> dict[str, Any]:
    """Header of a frame that was verified before it was stored."""
    header: dict[str, Any] = json.loads(frame[5 : 5 + int.from_bytes(frame[1:5], "big")])
    return header
