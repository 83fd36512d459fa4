"""Entries that no verifier may accept, and the code with which every one refuses them."""

import os
from collections.abc import Sequence

from claudemesh.crypto import primitives
from claudemesh.errors import Invalid
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import UnixMillis
from tests.attacks.wire_member import WireMember


def verdict(entries: Sequence[Entry], entry: Entry, now: UnixMillis | None = None) -> str:
    """The code with which every verifier refuses `entry` after `entries`; "" when it is valid."""
    roster = Roster()
    for known in entries:
        roster.apply(known)
    try:
        roster.check(entry, now)
    except Invalid as error:
        return error.code if error.code != "denied" else f"denied {error.detail}"
    return ""


def escalations(alice: WireMember, bob: WireMember) -> list[Entry]:
    """A25, A46: what a plain member may not do."""
    other = primitives.signing_key(os.urandom(32))
    link = bob.new_link("ws://unused/ws")
    return [
        bob.entry("role", who=bob.id, role="admin"),
        bob.entry("role", who=bob.id, role="owner"),
        bob.entry("revoke", who=alice.id, why="removed"),
        bob.invite(link),
        bob.invite(link, role="owner", user=bob.user.public),
        bob.invite(link, user=alice.user.public),
        bob.entry("broker", bk=other.public),
        bob.entry("role", who=bob.id, role="admin", by=alice.id),
    ]


def escalations_of_an_admin(alice: WireMember, bob: WireMember) -> list[Entry]:
    """A25: what an admin may not do."""
    link = bob.new_link("ws://unused/ws")
    return [
        bob.invite(link, role="admin"),
        bob.invite(link, role="owner", user=bob.user.public),
        bob.entry("revoke", who=alice.id, why="removed"),
        bob.entry("role", who=bob.id, role="owner"),
        bob.entry("broker", bk=bob.id),
    ]
