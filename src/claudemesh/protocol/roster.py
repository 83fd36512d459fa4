"""The roster: membership as a fold over signed, hash-chained entries (docs/spec/roster.md).

Broker, peers and auditors run this same code. The broker only orders entries; each entry needs a
key that the broker does not hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Body
from claudemesh.errors import BadSignature, RosterRefused
from claudemesh.protocol import roster_effects, roster_rules
from claudemesh.protocol.limits import CLOCK_SKEW_MS, FUTURE_ENTRY_MS, MAX_LOG_ENTRIES
from claudemesh.protocol.roster_entry import (
    Entry,
    SignedEntry,
    entry_digest,
    read_entry,
    sign_entry,
    verify_signatures,
)
from claudemesh.protocol.roster_state import (
    EVERYONE,
    GENERAL,
    RANK,
    SPACE,
    Channel,
    Invite,
    InviteState,
    Member,
    RosterState,
)
from claudemesh.types import ZERO_DIGEST, Digest, UnixMillis

__all__ = [
    "EVERYONE",
    "GENERAL",
    "RANK",
    "SPACE",
    "Channel",
    "Checked",
    "Entry",
    "Invite",
    "InviteState",
    "Member",
    "Relation",
    "Roster",
    "SignedEntry",
    "entry_digest",
    "sign_entry",
    "verify_signatures",
]


class Relation(Enum):
    """How somebody else's head stands to this log."""

    KNOWN = "known"
    """This log has it: the same head or an earlier one."""
    AHEAD = "ahead"
    """It is longer than this log, which cannot tell more yet."""
    CONFLICT = "conflict"
    """This log has another entry there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry that was found valid on one head, `prev`; it is valid on no other."""

    entry: Entry
    body: Body
    digest: Digest

    @property
    def seq(self) -> int:
        return int(self.body["seq"])

    @property
    def prev(self) -> Digest:
        return Digest(self.body["prev"])

    @property
    def op(self) -> str:
        return str(self.body["op"])


class Roster(RosterState):
    """A mesh's log as far as it is known here. Empty until its genesis is applied."""

    def check(self, given: Entry | SignedEntry, now: UnixMillis | None) -> Checked:
        """Verify an entry against the end of this log and change nothing.

        Args:
            given: Of one whose signatures were verified before, only whose they are is checked.
            now: This machine's clock, which bounds the entry's date: otherwise one member could
                move the log's clock as far as it likes. None where no clock may decide.

        Raises:
            Malformed: The body is not canonical or has another field set.
            RosterRefused: It breaks the chain or a rule; `detail` says which for `denied`.
            BadSignature: A required signature is missing or wrong, or there is one too many.
        """
        entry = given.entry if isinstance(given, SignedEntry) else given
        checked = self._place(entry)
        if now is not None and checked.body["at"] > now + FUTURE_ENTRY_MS:
            raise RosterRefused("future_entry")
        signers = roster_rules.required_signers(self, checked.body)
        for key in signers:
            if key not in entry.s:
                raise BadSignature("sig_missing", key[:8])
            if given is entry:
                statements.verify_bytes(key, "roster", entry.b.encode(), entry.s[key])
        if len(entry.s) != len(signers):
            raise BadSignature("sig_extra")
        return checked

    def advance(self, checked: Checked) -> None:
        """Apply a checked entry.

        Raises:
            RosterRefused: `prev`; the log has moved since the check, nothing was applied.
        """
        if checked.prev != self.head or checked.seq != self.seq + 1:
            raise RosterRefused("prev", "the log moved since the check")
        roster_effects.perform(self, checked.body, checked.digest)

    def apply(self, entry: Entry | SignedEntry, now: UnixMillis | None = None) -> Checked:
        """Check an entry and apply it; raises as `check` does, and then nothing was applied."""
        checked = self.check(entry, now)
        self.advance(checked)
        return checked

    @classmethod
    def restore(cls, entries: Iterable[Entry]) -> Self:
        """Rebuild from one's own store of verified entries: chain and rules, but no signatures.

        The chain vouches for every entry but the last; the caller compares `head` with the one that
        it stored.

        Raises:
            Malformed, RosterRefused: The store is damaged.
        """
        roster = cls()
        roster.restore_more(entries)
        return roster

    def restore_more(self, entries: Iterable[Entry]) -> None:
        """Go on with `restore`, so that no long log has to be in memory as a whole; raises as it does."""
        for entry in entries:
            checked = self._place(entry)
            roster_rules.required_signers(self, checked.body)
            roster_effects.perform(self, checked.body, checked.digest)

    def next_body(self, op: str, at: UnixMillis, **fields: Any) -> Body:
        """Body of an entry that follows this head; `fields` are those of `op`, with `by`."""
        return {
            "v": 1,
            "mesh": self.mesh or ZERO_DIGEST,
            "seq": self.seq + 1,
            "prev": self.head,
            "op": op,
            "at": at,
            **fields,
        }

    def relate(self, seq: int, head: Digest) -> Relation:
        """Compare another head with this log."""
        if seq > self.seq:
            return Relation.AHEAD
        known = self.digest_at(seq) if seq >= 0 else ZERO_DIGEST
        return Relation.KNOWN if head == known else Relation.CONFLICT

    def _place(self, entry: Entry) -> Checked:
        """Check the form of an entry and that it follows this head."""
        body = read_entry(entry)
        if self.seq + 1 >= MAX_LOG_ENTRIES:
            raise RosterRefused("log_full")
        if body["seq"] != self.seq + 1:
            raise RosterRefused("seq", f"{body['seq']} instead of {self.seq + 1}")
        if body["prev"] != self.head:
            raise RosterRefused("prev")
        if (body["op"] == "genesis") != (self.seq == -1):
            raise RosterRefused("genesis")
        if body["mesh"] != (self.mesh or ZERO_DIGEST):
            raise RosterRefused("mesh")
        if body["at"] + CLOCK_SKEW_MS < self.at:
            raise RosterRefused("time_back")
        return Checked(entry, body, statements.digest("roster", entry.b.encode()))
