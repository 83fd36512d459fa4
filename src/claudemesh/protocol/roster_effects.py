"""What each operation changes in the state; its rule was checked before (docs/spec/roster.md §4)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from claudemesh.crypto.statements import Body
from claudemesh.protocol.limits import DEVICE_ALLOWANCE
from claudemesh.protocol.roster_rules import revoked_by
from claudemesh.protocol.roster_state import Channel, Invite, Member, RosterState, User
from claudemesh.types import Digest, InviteId, MeshId, PeerId, Role


def perform(state: RosterState, body: Body, digest: Digest) -> None:
    """Apply a checked entry to `state` and move its head."""
    if body["op"] == "genesis":
        state.mesh = MeshId(digest)
    _EFFECTS[body["op"]](state, body)
    state.extend_chain(digest, body["at"])


def _genesis(state: RosterState, body: Body) -> None:
    state.recovery = body.get("rec")
    _broker(state, body)
    _add_member(state, body, "owner", None, DEVICE_ALLOWANCE)


def _invite(state: RosterState, body: Body) -> None:
    issuing_user = state.members[body["by"]].user
    own = body.get("user") == issuing_user
    if own:
        state.users[issuing_user].device_uses_issued += body["uses"]
    invite = Invite(
        id=body["inv"],
        issuer=body["by"],
        role=body["role"],
        uses=body["uses"],
        expires_at=body["exp"],
        user=body.get("user"),
        since_seq=body["seq"],
        devices=0 if own else body.get("dev", DEVICE_ALLOWANCE),
    )
    state.invites[invite.id] = invite
    kept = state.open_invites.get(invite.issuer, set())
    state.open_invites[invite.issuer] = {one for one in kept if state.is_open(state.invites[one])} | {invite.id}


def _uninvite(state: RosterState, body: Body) -> None:
    _close_invite(state, body["inv"], lapsed=body["at"] > state.invites[body["inv"]].expires_at)


def _admit(state: RosterState, body: Body) -> None:
    invite = state.invites[body["by"]]
    invite = state.invites[invite.id] = replace(invite, used=invite.used + 1)
    if invite.used >= invite.uses:
        state.open_invites[invite.issuer].discard(invite.id)
    _add_member(state, body, invite.role, invite.id, invite.devices)


def _revoke(state: RosterState, body: Body) -> None:
    for peer in revoked_by(state, body["who"]):
        _remove_member(state, peer, body["seq"])


def _rekey(state: RosterState, body: Body) -> None:
    member = state.members[body["by"]]
    state.members[member.id] = replace(member, box=body["box"], card_floor=body["cs"], rekeyed_seq=body["seq"])
    _touch(state, member.id, body["seq"])


def _role(state: RosterState, body: Body) -> None:
    member = state.members[body["who"]]
    state.members[member.id] = replace(member, role=body["role"])
    _rank(state, member.id, body["role"])


def _recover(state: RosterState, body: Body) -> None:
    for peer in state.owners | state.admins:
        _remove_member(state, peer, body["seq"])
    for issuer in list(state.open_invites):
        _close_invites_of(state, issuer)
    _add_member(state, body, "owner", None, DEVICE_ALLOWANCE)
    state.recovered_seq = body["seq"]


def _chan(state: RosterState, body: Body) -> None:
    channel = Channel(body["chan"], body["kind"], body["by"], body["seq"], body["seq"])
    state.channels[channel.id] = channel
    state.channels_created[body["by"]] = state.channels_created.get(body["by"], 0) + 1
    if channel.kind != "open":
        _toggle(state, channel, body["by"], body["seq"])


def _chan_add(state: RosterState, body: Body) -> None:
    _toggle(state, state.channels[body["chan"]], body["who"], body["seq"])


def _chan_del(state: RosterState, body: Body) -> None:
    _toggle(state, state.channels[body["chan"]], body["who"], body["seq"])


def _broker(state: RosterState, body: Body) -> None:
    state.broker = body["bk"]
    state.broker_url = body.get("url", state.broker_url)
    state.broker_changes.append((body["seq"], body["bk"]))


def _add_member(state: RosterState, body: Body, role: Role, invite: InviteId | None, devices: int) -> None:
    keys = body["m"]
    member = Member(keys["sign"], keys["box"], keys["user"], role, body["seq"], invite)
    state.members[member.id] = member
    _rank(state, member.id, role)
    user = state.users.setdefault(member.user, User())
    user.peers.add(member.id)
    user.device_allowance = max(user.device_allowance, devices)
    _touch(state, member.id, body["seq"])


def _remove_member(state: RosterState, peer: PeerId, seq: int) -> None:
    member = state.members[peer]
    state.members[peer] = replace(member, active=False, revoked_seq=seq)
    _rank(state, peer, "member")
    state.users[member.user].peers.discard(peer)
    _close_invites_of(state, peer)
    _touch(state, peer, seq)


def _rank(state: RosterState, peer: PeerId, role: Role) -> None:
    state.owners.discard(peer)
    state.admins.discard(peer)
    if role != "member":
        (state.owners if role == "owner" else state.admins).add(peer)


def _close_invites_of(state: RosterState, issuer: PeerId) -> None:
    for invite in list(state.open_invites.get(issuer, ())):
        if state.is_open(state.invites[invite]):
            _close_invite(state, invite)
    state.open_invites.pop(issuer, None)


def _close_invite(state: RosterState, invite: InviteId, *, lapsed: bool = False) -> None:
    known = state.invites[invite]
    state.invites[invite] = replace(known, active=False, lapsed=lapsed)
    state.open_invites.get(known.issuer, set()).discard(invite)


def _toggle(state: RosterState, channel: Channel, peer: PeerId, seq: int) -> None:
    channel.members ^= {peer}
    channel.history.setdefault(peer, []).append(seq)
    channel.version = seq
    of_peer = state.closed_channels_of.setdefault(peer, set())
    of_peer ^= {channel.id}


def _touch(state: RosterState, peer: PeerId, seq: int) -> None:
    """Record a change of `peer` in every channel that it is in: their epochs rotate."""
    state.open_version = seq
    for channel in state.closed_channels_of.get(peer, ()):
        state.channels[channel].version = seq


_EFFECTS: Final[dict[str, Callable[[RosterState, Body], None]]] = {
    "genesis": _genesis,
    "invite": _invite,
    "uninvite": _uninvite,
    "admit": _admit,
    "revoke": _revoke,
    "rekey": _rekey,
    "role": _role,
    "recover": _recover,
    "chan": _chan,
    "chan_add": _chan_add,
    "chan_del": _chan_del,
    "broker": _broker,
}
