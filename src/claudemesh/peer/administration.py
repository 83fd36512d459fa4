"""What a peer may change in the roster: invites, removals, its own keys, the broker (docs/spec/roster.md §3)."""

from claudemesh.crypto.invite import InviteLink
from claudemesh.errors import AddressError, RosterRefused, Unreachable
from claudemesh.peer.assembly import Parts
from claudemesh.peer.uploading import broker_at, upload_log
from claudemesh.peer.views import InviteView
from claudemesh.types import InviteId, PeerId, Role, UserId

INVITE_SEED_BYTES = 16


async def invite(
    parts: Parts,
    *,
    uses: int,
    expires_in_ms: int,
    role: Role,
    personal: bool,
    device: bool,
) -> tuple[str, InviteId]:
    """Authorise an invite key in the roster, and make the link that carries its seed.

    Args:
        personal: The link hands over a fresh user identity, so that only its holder is that user.
        device: The link admits another device of our own user.

    Returns:
        The link, whose secret is kept nowhere, and the invite's public key.
    """
    entropy, keyring = parts.runtime.entropy, parts.keyring
    seed = entropy(INVITE_SEED_BYTES)
    user_seed = entropy(INVITE_SEED_BYTES) if personal else None
    link = InviteLink(
        broker_url=parts.uplink.url,
        mesh_prefix=parts.mesh[:32],
        seed=seed,
        user_seed=user_seed,
        mesh_label=keyring.keys.alias,
        inviter_label=keyring.keys.name,
    )
    key, user_key = link.invite_key(), link.user_key()
    fixed = keyring.user.user if device else user_key.public if user_key is not None else None
    line = await parts.uplink.line()
    await parts.membership.append(
        line,
        "invite",
        [keyring.sign, key],
        by=keyring.member,
        inv=key.public,
        role=role,
        uses=uses,
        exp=parts.runtime.now() + expires_in_ms,
        **({"user": fixed} if fixed is not None else {}),
    )
    return link.text(), InviteId(key.public)


def invites(parts: Parts) -> list[InviteView]:
    """Every invite that the roster ever held, the newest last."""
    roster, now = parts.membership.roster, parts.runtime.now()
    admitted: dict[InviteId, list[PeerId]] = {}
    for member in roster.members.values():
        if member.invite is not None:
            admitted.setdefault(member.invite, []).append(member.id)
    return [
        InviteView(
            id=known.id,
            issuer=known.issuer,
            state=roster.invite_state(known.id, now),
            used=known.used,
            uses=known.uses,
            role=known.role,
            expires_at=known.expires_at,
            for_user=known.user,
            admitted=tuple(admitted.get(known.id, ())),
        )
        for known in roster.invites.values()
    ]


async def uninvite(parts: Parts, prefix: str, *, with_members: bool) -> InviteView:
    """Close an invite, named by the first digits of its key; on demand also remove whom it admitted."""
    found = [one for one in invites(parts) if one.id.startswith(prefix.lower())] if len(prefix) >= 4 else []
    if len(found) != 1:
        raise AddressError("ambiguous_address" if found else "unknown_address", f"invite {prefix}")
    line = await parts.uplink.line()
    keyring = parts.keyring
    try:
        await parts.membership.append(line, "uninvite", [keyring.sign], by=keyring.member, inv=found[0].id)
    except RosterRefused as error:
        if error.detail != "invite_revoked" or not with_members:
            raise
    if with_members:
        for peer in found[0].admitted:
            if parts.membership.roster.is_active(peer):
                await revoke(parts, peer, "removed")
    return found[0]


async def revoke(parts: Parts, who: PeerId | UserId, why: str) -> None:
    """Remove a peer, or a user with all its peers."""
    line = await parts.uplink.line()
    keyring = parts.keyring
    await parts.membership.append(line, "revoke", [keyring.sign], by=keyring.member, who=who, why=why)


async def leave(parts: Parts) -> None:
    """Remove this peer itself. The broker may end the link before it answers; then its refusal of the next one answers.

    Raises:
        RosterRefused: `last_owner`; nothing was changed.
        Unreachable: Whether the peer was removed is unknown.
    """
    try:
        await revoke(parts, parts.keyring.member, "left")
    except Unreachable:
        parts.uplink.reconnect()
        if not await parts.uplink.is_refused("revoked"):
            raise


async def rekey(parts: Parts) -> None:
    """Replace this peer's box key because the old one may be stolen: no broker can bring the old one back."""
    line = await parts.uplink.line()
    keyring = parts.keyring
    box = keyring.rotate(parts.runtime.now())
    await parts.membership.append(line, "rekey", [keyring.sign], by=keyring.member, box=box.box, cs=box.cs)
    await parts.cards.publish(line)


async def move(parts: Parts, url: str) -> None:
    """Move the mesh to the broker at `url`: an owner's entry names it, and it gets the whole roster.

    Every peer follows when it sees the entry; one that is offline learns of it from the old broker.

    Raises:
        Unreachable, HandshakeRefused: The new broker does not answer; nothing was changed.
        RosterRefused: Only an owner may do this; nothing was changed.
    """
    broker = await broker_at(parts.connect, url, parts.runtime)
    line = await parts.uplink.line()
    keyring = parts.keyring
    await parts.membership.append(line, "broker", [keyring.sign], by=keyring.member, bk=broker, url=url)
    # From here on it is done: should this upload fail, the next link to the new broker repeats it.
    await upload_log(parts.connect, url, broker, parts.membership.entries(), parts.runtime)
