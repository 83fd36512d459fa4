"""Invites whose time is over are closed in the roster, by those who administer it (docs/spec/roster.md §3)."""

from contextlib import suppress

from claudemesh.errors import Refused, RosterConflict, RosterRefused
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.protocol.roster import RANK
from claudemesh.types import UnixMillis


async def close_overdue(membership: Membership, keyring: Keyring, line: Line, now: UnixMillis) -> None:
    """Close one overdue invite, where there is any: its entry moves the log's clock past the end of all of them.

    Raises:
        Unreachable: Whether it was closed is unknown.
    """
    roster = membership.roster
    is_admin = roster.rank_of(keyring.member) >= RANK["admin"]
    for invite in roster.overdue_invites(now):
        if is_admin or invite.issuer == keyring.member:
            with suppress(Refused, RosterRefused, RosterConflict):  # another was faster, or the next round is
                await membership.append(line, "uninvite", [keyring.sign], by=keyring.member, inv=invite.id)
            return
