"""Sessions for containers and CI jobs: made here, used elsewhere, ended by the peer's next card (docs/sdk.md §10)."""

from dataclasses import dataclass

from claudemesh.crypto import identity
from claudemesh.errors import AddressError, UsageError
from claudemesh.peer import contents
from claudemesh.peer.config import LogPin
from claudemesh.peer.journal import handed_out as rows
from claudemesh.peer.journal.handed_out import HandedOutRow
from claudemesh.peer.parts import Parts
from claudemesh.peer.session_bundle import Bundle, KnownName, require_capabilities, write_bundle
from claudemesh.protocol import limits
from claudemesh.types import SessionId, UnixMillis

SECRET_BYTES = 64
MIN_PREFIX = 8


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A session of this peer that somebody else runs."""

    session: SessionId
    label: str
    capabilities: tuple[str, ...]
    issued_at: UnixMillis
    expires_at: UnixMillis
    ended_at: UnixMillis
    """0 while it may speak."""


async def hand_out(
    parts: Parts, capabilities: tuple[str, ...], label: str, expires_in_ms: int
) -> tuple[HandedOut, bytes]:
    """Make a session that can do only what its capabilities allow.

    Args:
        capabilities: Some of `dm`, `chan` and the reserved ones; nothing that speaks for the whole peer.
        expires_in_ms: Up to 7 days: its peer signs that once, and nobody can prolong it.

    Returns:
        The session, and the content of its file, which is a secret and is kept nowhere.

    Raises:
        UsageError: A capability or the time is not one that can be given.
    """
    capabilities = require_capabilities(capabilities)
    label = contents.require_name(label, "a session's label")
    if not 0 < expires_in_ms <= limits.ATTESTATION_MAX_MS:
        raise UsageError("usage", "a session lasts for more than 0 and at most 7 days")
    keyring, membership, now = parts.keyring, parts.membership, parts.runtime.now()
    secret = parts.runtime.entropy(SECRET_BYTES)
    keys = identity.session_keys(secret)
    statement = identity.attest(keyring.sign, parts.mesh, keys, now, expires_in_ms, capabilities)
    bundle = Bundle(
        mesh=parts.mesh,
        alias=keyring.keys.alias,
        member=keyring.member,
        label=label,
        sign_sk=secret[:32].hex(),
        box_sk=keys.box.secret.hex(),
        attestation=statement,
        card=keyring.current.cs,
        broker=parts.uplink.address(),
        log=LogPin(membership.roster.seq, membership.roster.head),
        names=[KnownName(one.id, one.name, one.device) for one in parts.names.known_peers() if one.name],
        channels=_channels(parts) if "chan" in capabilities else {},
    )
    row = HandedOutRow(keys.id, label, ",".join(capabilities), now, UnixMillis(now + expires_in_ms), UnixMillis(0))
    await parts.journal.write(lambda connection: rows.save(connection, parts.mesh, row))
    return _view(row), write_bundle(bundle)


async def list_handed_out(parts: Parts) -> list[HandedOut]:
    """The sessions that were handed out and are remembered, the oldest first."""
    found = await parts.journal.read(lambda connection: rows.load(connection, parts.mesh))
    return [_view(row) for row in found]


async def end(parts: Parts, name: str) -> HandedOut:
    """End a session before its time: a new card says so to everybody, and no broker can take it back for long.

    Args:
        name: Its label, where only one that lives has it, or the first 8 digits of its key.

    Raises:
        AddressError: There is no such session, or several.
        Unreachable, Refused: The card waits; it is published with the next link.
    """
    wanted = name.strip()
    living = [one for one in await list_handed_out(parts) if not one.ended_at]
    by_key = [one for one in living if len(wanted) >= MIN_PREFIX and one.session.startswith(wanted.lower())]
    found = by_key or [one for one in living if one.label == wanted]
    if len(found) != 1:
        known = ", ".join(f"{one.label} [{one.session[:8]}]" for one in found or living)
        raise AddressError("ambiguous_address" if found else "unknown_address", f"{wanted}; there is {known or 'none'}")
    session, now = found[0].session, parts.runtime.now()
    await parts.journal.write(lambda connection: rows.end(connection, parts.mesh, session, now))
    parts.keyring.rotate(now)
    await parts.cards.publish(await parts.uplink.line())
    return next(one for one in await list_handed_out(parts) if one.session == session)


def _channels(parts: Parts) -> dict[str, str]:
    """The channels that this peer is in, by the names that are shown."""
    roster, directory = parts.membership.roster, parts.channels.directory
    member = parts.keyring.member
    return {
        directory.address_of(channel.id): channel.id
        for channel in directory.channels()
        if member in roster.channel_members(channel.id)
    }


def _view(row: HandedOutRow) -> HandedOut:
    return HandedOut(
        row.session, row.label, tuple(row.capabilities.split(",")), row.issued_at, row.expires_at, row.ended_at
    )
