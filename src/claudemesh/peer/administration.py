"""What a peer may change in the roster: invites, removals, its own keys, the broker (docs/spec/roster.md §3)."""

from dataclasses import dataclass
from typing import Any

from claudemesh.crypto.invite import InviteLink
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import AddressError, EpochRefused, Refused, RosterRefused, Unreachable
from claudemesh.peer import contents, rulings
from claudemesh.peer.addressing import Target
from claudemesh.peer.parts import Parts
from claudemesh.peer.uploading import broker_at, upload_log
from claudemesh.peer.views import InviteView
from claudemesh.types import InviteId, PeerId, Role

INVITE_SEED_BYTES = 16


@dataclass(frozen=True, slots=True)
class Revoked:
    """Who is out, and what went with them."""

    peers: tuple[PeerId, ...]
    invites: tuple[InviteId, ...]
    """Invites that were open before and are closed now."""
    rotated: bool
    """Whether the channels have new secrets already; else the next who writes makes them."""


@dataclass(frozen=True, slots=True)
class ClosedInvite:
    """An invite that admits nobody any more, and what became of those whom it had admitted."""

    invite: InviteView
    revoked: tuple[PeerId, ...]
    kept: tuple[PeerId, ...]
    """Peers that this one may not remove: their role is not below its own."""
    rotated: bool

    @property
    def id(self) -> InviteId:
        return self.invite.id


async def invite(
    parts: Parts,
    *,
    uses: int,
    expires_in_ms: int,
    role: Role,
    personal: bool,
    device: bool,
    name: str = "",
) -> tuple[str, InviteId]:
    """Authorise an invite key in the roster, and make the link that carries its seed.

    Args:
        personal: The link hands over a fresh user identity, so that only its holder is that user.
        device: The link admits another device of our own user.
        name: What the link suggests to its holder as a name; of a device link that is always our own.

    Returns:
        The link, whose secret is kept nowhere, and the invite's public key.
    """
    name = contents.require_name(name, "a name") if name else ""
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
        joiner_label=keyring.keys.name if device else name,
    )
    key, user_key = link.invite_key(), link.user_key()
    fixed = keyring.user.user if device else user_key.public if user_key is not None else None
    await _append(
        parts,
        "invite",
        key,
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


async def uninvite(parts: Parts, prefix: str, *, with_members: bool) -> ClosedInvite:
    """Close an invite, named by the first digits of its key; on demand also remove whom it admitted.

    A link that leaked: it is closed first, so that nobody joins by it while those who did are removed.
    """
    found = [one for one in invites(parts) if one.id.startswith(prefix.lower())] if len(prefix) >= 4 else []
    if len(found) != 1:
        raise AddressError("ambiguous_address" if found else "unknown_address", f"invite {prefix}")
    invite_id = found[0].id
    try:
        await _append(parts, "uninvite", inv=invite_id)
    except RosterRefused as error:
        if not with_members or not error.detail.endswith("(invite_revoked)"):
            raise
    if not with_members:
        return ClosedInvite(_view(parts, invite_id), (), (), rotated=False)
    revoked, kept = [], []
    for peer in _view(parts, invite_id).admitted:
        if peer == parts.keyring.member or not parts.membership.roster.is_active(peer):
            continue
        try:
            await _append(parts, "revoke", who=peer, why="removed")
        except RosterRefused:
            kept.append(peer)
        else:
            revoked.append(peer)
    rotated = await rotate(parts) if revoked else False
    return ClosedInvite(_view(parts, invite_id), tuple(revoked), tuple(kept), rotated)


async def revoke(parts: Parts, target: Target, why: str, *, close_invites: bool) -> Revoked:
    """Remove a peer, or a user with all its peers, and replace what they know of channels.

    Args:
        why: `left`, `lost`, `stolen` or `removed`.
        close_invites: Also close the open invites that admitted them: they may have passed the links on. Those that
            they issued themselves are dead in any case.

    Raises:
        RosterRefused: `denied`; of several peers those before it are removed.
        Unreachable: Whether the last one was removed is unknown.
    """
    roster = parts.membership.roster
    user_peers = roster.peers_of_user(target.user) if target.user is not None else frozenset()
    whole_user = target.user is not None and parts.keyring.member not in user_peers
    victims = tuple(sorted(user_peers)) if whole_user else target.peers
    admitted_by = {roster.members[peer].invite for peer in victims}
    open_before = {invite for invite, known in roster.invites.items() if roster.is_open(known)}
    for who in (target.user,) if whole_user else victims:
        await _append(parts, "revoke", who=who, why=why)
    for invite_id in sorted(one for one in admitted_by if one is not None) if close_invites else ():
        if roster.is_open(roster.invites[invite_id]):
            await _append(parts, "uninvite", inv=invite_id)
    closed = tuple(sorted(one for one in open_before if not roster.is_open(roster.invites[one])))
    return Revoked(victims, closed, await rotate(parts))


async def leave(parts: Parts) -> None:
    """Remove this peer itself. The broker may end the link before it answers; then its refusal of the next one answers.

    Raises:
        RosterRefused: `last_owner`; nothing was changed.
        Unreachable: Whether the peer was removed is unknown.
    """
    try:
        await _append(parts, "revoke", who=parts.keyring.member, why="left")
    except Unreachable:
        parts.uplink.reconnect()
        if not await parts.uplink.is_refused("revoked"):
            raise
    except Refused as error:
        if error.code != "removed":
            raise


async def set_role(parts: Parts, target: Target, role: Role) -> tuple[PeerId, ...]:
    """Give every peer of a target a role; returns those that had another one."""
    roster = parts.membership.roster
    changed = tuple(peer for peer in target.peers if roster.role_of(peer) != role)
    for peer in changed:
        await _append(parts, "role", who=peer, role=role)
    return changed


async def rekey(parts: Parts) -> bool:
    """Replace this peer's box key because the old one may be stolen: no broker can bring the old one back.

    Returns:
        Whether the channels that this peer is in have new secrets already; else the next who writes makes them.
    """
    await parts.uplink.line()
    box = parts.keyring.rotate(parts.runtime.now())
    await _append(parts, "rekey", box=box.box, cs=box.cs)
    await parts.cards.publish(await parts.uplink.line())
    return await rotate(parts)


async def rotate(parts: Parts) -> bool:
    """Replace what a removed peer knows of channels; False when that is left to the next who writes."""
    try:
        await parts.channels.rotator.rotate_all(await parts.uplink.line())
    except (EpochRefused, Refused, Unreachable):
        return False
    return True


async def move(parts: Parts, url: str) -> None:
    """Move the mesh to the broker at `url`: an owner's entry names it, and it gets the whole roster.

    Every peer follows when it sees the entry; one that is offline learns of it from the old broker.

    Raises:
        Unreachable, HandshakeRefused: The new broker does not answer; nothing was changed.
        RosterRefused: Only an owner may do this; nothing was changed.
    """
    broker = await broker_at(parts.connect, url, parts.runtime)
    await _append(parts, "broker", bk=broker, url=url)
    # From here on it is done: should this upload fail, the next link to the new broker repeats it.
    await upload_log(parts.connect, url, broker, parts.membership.entries(), parts.runtime)


async def _append(parts: Parts, op: str, *others: SigningKey, **fields: Any) -> None:
    """Append an entry of this peer; a refusal says in words what the rule is."""
    parts.uplink.require_member()
    line, keyring = await parts.uplink.line(), parts.keyring
    try:
        await parts.membership.append(line, op, [keyring.sign, *others], by=keyring.member, **fields)
    except RosterRefused as error:
        raise rulings.in_words(op, error, parts.membership.roster.role_of(keyring.member)) from error


def _view(parts: Parts, invite_id: InviteId) -> InviteView:
    return next(one for one in invites(parts) if one.id == invite_id)
