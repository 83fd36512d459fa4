"""Whether an envelope may be stored, as far as roster, attestation and clock decide it (docs/spec/broker.md §4.1)."""

from claudemesh.broker.directory import KnownAttestation, Mesh
from claudemesh.broker.links import Link
from claudemesh.broker.subscriptions import is_member
from claudemesh.protocol.messages import Post, Send
from claudemesh.types import BrokerId, ChannelId, PeerId, UnixMillis

Objection = tuple[str, str]
"""Code and detail of a refusal."""


def object_to_send(
    link: Link,
    mesh: Mesh,
    message: Send,
    known: KnownAttestation | None,
    broker: BrokerId,
    now: UnixMillis,
    lifetime_ms: int,
) -> Objection | None:
    """Why a direct message is not admitted, or None."""
    objection = _object_to_sender(link, mesh, message, known, broker, now, "dm")
    if objection is not None:
        return objection
    if not mesh.roster.is_active(PeerId(message.to)):
        return "unknown_peer", ""
    if mesh.rekeys.get(PeerId(message.to), -1) > message.rs:
        return "stale_roster", ""
    return _object_to_times(message, now, lifetime_ms)


def object_to_post(
    link: Link,
    mesh: Mesh,
    message: Post,
    known: KnownAttestation | None,
    broker: BrokerId,
    now: UnixMillis,
    lifetime_ms: int,
) -> Objection | None:
    """Why a channel message is not admitted, or None."""
    objection = _object_to_sender(link, mesh, message, known, broker, now, "chan")
    if objection is not None:
        return objection
    return object_to_place(mesh, ChannelId(message.chan), link.peer, message.rs) or _object_to_times(
        message, now, lifetime_ms
    )


def object_to_place(mesh: Mesh, channel: ChannelId, sender: PeerId, roster_seq: int) -> Objection | None:
    """Why nothing that was sealed at `roster_seq` may go into a channel now, or None.

    Asked again when the commit begins: between admission and commit the members may have changed.
    """
    if not is_member(mesh.roster, channel, sender):
        return "invalid", "the sender is not in the channel"
    if roster_seq < mesh.roster.channel_version(channel):
        return "stale_roster", ""
    return None


def object_to_session(
    mesh: Mesh, peer: PeerId, known: KnownAttestation | None, capability: str, broker: BrokerId, now: UnixMillis
) -> Objection | None:
    """Why nothing is taken from a session of `peer`, or None."""
    if not mesh.serves(broker):
        return "moved", ""
    if known is None or known.attestation.member != peer:
        return "invalid", "attestation is not published"
    if known.attestation.expires_at < now:
        return "invalid", "att_expired"
    if capability not in known.attestation.capabilities:
        return "invalid", f"cap {capability}"
    return None


def _object_to_sender(
    link: Link,
    mesh: Mesh,
    message: Send | Post,
    known: KnownAttestation | None,
    broker: BrokerId,
    now: UnixMillis,
    capability: str,
) -> Objection | None:
    if message.mesh != link.mesh or message.sender != link.peer:
        return "invalid", "mesh or sender"
    return object_to_session(mesh, link.peer, known, capability, broker, now)


def _object_to_times(message: Send | Post, now: UnixMillis, lifetime_ms: int) -> Objection | None:
    if (message.exp is not None and message.exp <= now) or (
        message.nbf is not None and message.nbf > now + lifetime_ms
    ):
        return "invalid", "times"
    return None
