"""Who may do what: for each operation, its rule and the keys that must sign it (docs/spec/roster.md §3).

A rule reads the state and changes nothing. It returns the required signers or refuses the entry
with `denied` and the reason.
"""

from collections.abc import Callable
from typing import Final, NoReturn

from claudemesh.crypto.statements import Body
from claudemesh.errors import RosterRefused
from claudemesh.protocol import limits
from claudemesh.protocol.roster_state import RANK, Channel, RosterState
from claudemesh.types import PeerId, UserId

_MEMBER, _ADMIN, _OWNER = RANK["member"], RANK["admin"], RANK["owner"]


def required_signers(state: RosterState, body: Body) -> tuple[str, ...]:
    """The keys that must sign `body`, exactly these.

    Raises:
        RosterRefused: `denied` or `genesis`; the state does not allow the operation to its author.
    """
    return _RULES[body["op"]](state, body)


def revoked_by(state: RosterState, who: str) -> list[PeerId]:
    """The active peers that a `revoke` of `who` (a peer, or a user with all its peers) concerns."""
    member = state.members.get(PeerId(who))
    if member is not None:
        return [member.id] if member.active else []
    known = state.users.get(UserId(who))
    return sorted(known.peers) if known is not None else []


def _deny(reason: str) -> NoReturn:
    raise RosterRefused("denied", reason)


def _genesis(state: RosterState, body: Body) -> tuple[str, ...]:
    if body["by"] != body["m"]["sign"]:
        raise RosterRefused("genesis", "not signed by its owner")
    return (body["by"],)


def _invite(state: RosterState, body: Body) -> tuple[str, ...]:
    rank = state.rank_of(body["by"])
    if rank == 0:
        _deny("inactive")
    own = body.get("user") == state.members[body["by"]].user
    _check_invited_role(rank, RANK[body["role"]], own)
    if "user" in body and not own and rank < _OWNER:
        _deny("user")
    _check_uses(state, body, own, rank)
    if not body["at"] < body["exp"] <= body["at"] + limits.INVITE_MAX_MS:
        _deny("exp")
    mine = state.open_invites.get(body["by"], set())
    if sum(state.is_open(state.invites[invite]) for invite in mine) >= limits.OPEN_INVITES_PER_ISSUER:
        _deny("invite_limit")
    if body["inv"] in state.invites or body["inv"] in state.members:
        _deny("key_reuse")
    return (body["by"], body["inv"])


def _check_invited_role(rank: int, invited: int, own: bool) -> None:
    """Nobody invites above themselves; only owners hand out ranks, except to their own devices."""
    if invited > rank:
        _deny("rank")
    if own:
        return
    if rank == _MEMBER:
        _deny("own_devices_only")
    if (rank == _ADMIN and invited != _MEMBER) or invited == _OWNER:
        _deny("rank")


def _check_uses(state: RosterState, body: Body, own: bool, rank: int) -> None:
    highest = limits.DEVICE_LINK_USES_MAX if "user" in body else limits.INVITE_USES_MAX
    if body["role"] != "member":
        highest = 1
    if not 1 <= body["uses"] <= highest:
        _deny("uses")
    if "dev" in body and (own or body["dev"] > limits.DEVICE_ALLOWANCE):
        _deny("dev")
    if own and rank < _OWNER and body["uses"] > state.device_uses_left(body["user"]):
        _deny("device_allowance")


def _uninvite(state: RosterState, body: Body) -> tuple[str, ...]:
    invite = state.invites.get(body["inv"])
    rank = state.rank_of(body["by"])
    if rank == 0:
        _deny("inactive")
    if invite is None or not invite.active:
        _deny("invite_revoked" if invite else "no_grant")
    outranks = rank >= max(_ADMIN, state.rank_of(invite.issuer))
    if not (body["by"] == invite.issuer or outranks or body["at"] > invite.expires_at):
        _deny("rank")
    return (body["by"],)


def _admit(state: RosterState, body: Body) -> tuple[str, ...]:
    invite, keys = state.invites.get(body["by"]), body["m"]
    if invite is None:
        _deny("no_grant")
    if not invite.active:
        _deny("invite_revoked")
    if invite.used >= invite.uses:
        _deny("invite_exhausted")
    if body["at"] > invite.expires_at or not state.is_open(invite):
        _deny("invite_expired")
    _require_new_key(state, keys["sign"])
    if invite.user is None:
        return _distinct(body["by"], keys["sign"], keys["user"])
    if keys["user"] != invite.user:
        _deny("user")
    return (body["by"], keys["sign"])


def _revoke(state: RosterState, body: Body) -> tuple[str, ...]:
    by, rank = body["by"], state.rank_of(body["by"])
    targets = revoked_by(state, body["who"])
    if rank == 0 or not targets:
        _deny("inactive")
    user = state.members[by].user
    for target in (state.members[peer] for peer in targets):
        other = RANK[target.role]
        same_user = target.user == user and rank >= other
        if not (target.id == by or rank == _OWNER or rank > other or same_user):
            _deny("rank")
    if state.owners <= set(targets):
        _deny("last_owner")
    return (by,)


def _rekey(state: RosterState, body: Body) -> tuple[str, ...]:
    member = state.members.get(body["by"])
    if member is None or not member.active:
        _deny("inactive")
    if body["box"] == member.box or body["cs"] <= member.card_floor:
        _deny("rekey")
    return (body["by"],)


def _role(state: RosterState, body: Body) -> tuple[str, ...]:
    if state.rank_of(body["by"]) != _OWNER:
        _deny("rank")
    if not state.is_active(body["who"]):
        _deny("inactive")
    if body["role"] != "owner" and state.owners <= {body["who"]}:
        _deny("last_owner")
    return (body["by"],)


def _recover(state: RosterState, body: Body) -> tuple[str, ...]:
    if state.recovery is None or body["by"] != state.recovery:
        _deny("recovery")
    _require_new_key(state, body["m"]["sign"])
    return _distinct(body["by"], body["m"]["sign"])


def _chan(state: RosterState, body: Body) -> tuple[str, ...]:
    if not state.is_active(body["by"]):
        _deny("inactive")
    if body["chan"] in state.channels:
        _deny("chan_exists")
    if state.channels_created.get(body["by"], 0) >= limits.CHANNELS_PER_PEER:
        _deny("chan_limit")
    return (body["by"],)


def _chan_add(state: RosterState, body: Body) -> tuple[str, ...]:
    by, who = body["by"], body["who"]
    channel = _closed_channel(state, body)
    if not state.is_active(who):
        _deny("inactive")
    if who in channel.members:
        _deny("chan_member")
    inside, admin = by in channel.members, state.rank_of(by) >= _ADMIN
    joins_group = channel.kind == "group" and (by == who or admin)
    if not (joins_group or (inside and (admin or by == channel.creator))):
        _deny("rank")
    return (by,)


def _chan_del(state: RosterState, body: Body) -> tuple[str, ...]:
    channel = _closed_channel(state, body)
    if body["who"] not in channel.members:
        _deny("chan_member")
    if body["by"] not in (body["who"], channel.creator) and state.rank_of(body["by"]) < _ADMIN:
        _deny("rank")
    return (body["by"],)


def _broker(state: RosterState, body: Body) -> tuple[str, ...]:
    if state.rank_of(body["by"]) != _OWNER:
        _deny("rank")
    return (body["by"],)


def _closed_channel(state: RosterState, body: Body) -> Channel:
    if not state.is_active(body["by"]):
        _deny("inactive")
    channel = state.channels.get(body["chan"])
    if channel is None:
        _deny("chan_unknown")
    if channel.kind == "open":
        _deny("chan_open")
    return channel


def _require_new_key(state: RosterState, key: str) -> None:
    if key in state.members or key in state.invites:
        _deny("key_reuse")


def _distinct(*keys: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))


_RULES: Final[dict[str, Callable[[RosterState, Body], tuple[str, ...]]]] = {
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
