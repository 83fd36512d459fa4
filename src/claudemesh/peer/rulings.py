"""Why the rules of the mesh do not allow something, in words (docs/spec/roster.md §3)."""

from typing import Final

from claudemesh.errors import RosterRefused
from claudemesh.types import Role

_OWNERS: Final = {
    "role": "only an owner changes roles",
    "broker": "only an owner moves a mesh",
}
_REASONS: Final[dict[tuple[str, str], str]] = {
    ("role", "inactive"): "that peer is not in the mesh any more",
    ("role", "last_owner"): "the mesh would have no owner: make somebody else an owner first",
    ("revoke", "rank"): "you can remove yourself, your own devices and peers of a lower role",
    ("revoke", "inactive"): "nobody of that name is in the mesh any more",
    ("revoke", "last_owner"): "the mesh would have no owner: make somebody else an owner first",
    ("uninvite", "rank"): "an invite is closed by whoever made it, or by an admin or owner not below that",
    ("uninvite", "invite_revoked"): "the invite is closed already",
    ("invite", "rank"): "nobody invites above the own role, and only an owner invites admins",
    ("invite", "own_devices_only"): "a member links own devices only; ask an admin or owner for an invite",
    ("invite", "user"): "only an owner makes personal links",
    ("invite", "invite_limit"): "64 of your invites are open: close one first",
    ("invite", "device_allowance"): "your user has linked as many devices as it was granted",
    ("chan", "chan_limit"): "you have made 256 channels and groups, as many as one peer may",
    (
        "chan_add",
        "rank",
    ): "members are added to a private channel by its maker or an admin in it, to a group by an admin",
    ("chan_del", "rank"): "members are removed by whoever made the channel or group, or by an admin",
    ("rekey", "rekey"): "the new box key is not newer than the last one",
    ("recover", "recovery"): "these words are not the recovery key of this mesh",
}


def in_words(op: str, error: RosterRefused, role: Role | None) -> RosterRefused:
    """The same refusal for a person; the reason of the specification stays at its end."""
    if error.code != "denied" or " " in error.detail:
        return error
    reason = error.detail
    words = _OWNERS.get(op) if reason == "rank" and op in _OWNERS else _REASONS.get((op, reason))
    if reason == "inactive" and role is None:
        words = "this peer was removed from the mesh"
    if words is None:
        return error
    own = f"; you are {role}" if reason == "rank" and role is not None else ""
    return RosterRefused("denied", f"{words}{own} ({reason})")
