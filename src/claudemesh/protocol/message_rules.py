"""What a recipient requires of every opened message, whatever its kind (docs/spec/envelope.md §5).

Nothing here reads a secret; each check raises its own code, and none has a fallback.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

from claudemesh.crypto.identity import Attestation
from claudemesh.errors import EnvelopeRefused
from claudemesh.protocol.heads import Gossip, SignedHead, judge_claim
from claudemesh.protocol.limits import CLOCK_SKEW_MS, QUEUE_LIFETIME_MS
from claudemesh.protocol.roster import Roster
from claudemesh.types import SessionId, UnixMillis

PEER_CAPABILITY: Final = "state_w"
"""What a session needs to change what others hold of its peer."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The roster must be settled first: nothing was refused and nothing believed.

    On `SYNC` the caller fetches the roster and checks again as `synced`; on `FORK` and `WITHHELD` it
    freezes the mesh and keeps `claim` as proof, after the retries that WITHHELD asks for.
    """

    verdict: Gossip
    claim: SignedHead | None = None


def check_attestation(
    attestation: Attestation, roster: Roster, capability: str, dead: Container[SessionId] = ()
) -> None:
    """Require that an attested session may send one kind of message as an active peer of this mesh.

    Args:
        attestation: Opened, so its signature and lifetime are checked.
        dead: The sessions that the peer's newest card ends.

    Raises:
        EnvelopeRefused: `att`, `not_a_member`, `cap` or `session_dead`.
    """
    if attestation.mesh != roster.mesh:
        raise EnvelopeRefused("att", "of another mesh")
    if not roster.is_active(attestation.member):
        raise EnvelopeRefused("not_a_member")
    if capability not in attestation.capabilities:
        raise EnvelopeRefused("cap", capability)
    if attestation.session in dead:
        raise EnvelopeRefused("session_dead")


def check_content(content_type: str, attestation: Attestation) -> None:
    """Require that nothing but a full session speaks in the name of its whole peer: names, receipts, secrets (`cm/…`).

    Raises:
        EnvelopeRefused: `cap`.
    """
    if content_type.startswith("cm/") and PEER_CAPABILITY not in attestation.capabilities:
        raise EnvelopeRefused("cap", PEER_CAPABILITY)


def check_origin(header: Mapping[str, Any], attestation: Attestation) -> None:
    """Require that a signed header names the mesh, peer and session of its attestation, or raise `misdirected`."""
    named = (header["mesh"], header["from"], header["sess"])
    if named != (attestation.mesh, attestation.member, attestation.session):
        raise EnvelopeRefused("misdirected", "another mesh, peer or session")


def check_times(header: Mapping[str, Any], attestation: Attestation, now: UnixMillis) -> None:
    """Require that a message was written within its session's lifetime and is due now.

    Raises:
        EnvelopeRefused: `att_expired`, `time` or `too_early`.
    """
    written_at = header["ts"]
    if not attestation.issued_at - CLOCK_SKEW_MS <= written_at <= attestation.expires_at:
        raise EnvelopeRefused("att_expired")
    if not now - QUEUE_LIFETIME_MS <= written_at <= now + CLOCK_SKEW_MS or now > header.get("exp", now):
        raise EnvelopeRefused("time")
    if header.get("nb", 0) > now:
        raise EnvelopeRefused("too_early")


def settle_claim(claim: SignedHead, roster: Roster, *, synced: bool) -> Unsettled | None:
    """Judge the roster head that a message or epoch names; None when it is on this roster's chain.

    Raises:
        EnvelopeRefused: `unproven_roster_claim`; only this message is dropped.
    """
    verdict = judge_claim(claim, roster, synced=synced)
    if verdict is Gossip.UNPROVEN:
        raise EnvelopeRefused("unproven_roster_claim")
    return None if verdict is Gossip.ACCEPT else Unsettled(verdict, claim)
