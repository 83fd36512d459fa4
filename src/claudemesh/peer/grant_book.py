"""The decisions of this machine about who may do what here: kept in the journal, asked for each arriving message."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from claudemesh.peer import grants
from claudemesh.peer.addressing import Target
from claudemesh.peer.grants import BLOCK, Allow, Grants, Permission, Refuse, Rule, Sender
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import grants as rows
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Sessions
from claudemesh.types import PeerId, SessionId


class GrantBook:
    """Grants and blocks of one peer."""

    def __init__(
        self, membership: Membership, keyring: Keyring, sessions: Sessions, journal: Journal, runtime: Runtime
    ) -> None:
        self._membership = membership
        self._keyring = keyring
        self._sessions = sessions
        self._journal = journal
        self._runtime = runtime
        self._rules: dict[str, list[Rule]] = {}

    async def load(self) -> None:
        """Read the decisions from the journal."""
        mesh = self._membership.mesh
        self._replace(await self._journal.read(lambda connection: rows.load(connection, mesh)))

    def rules(self) -> list[Rule]:
        """Every decision."""
        return [rule for of_subject in self._rules.values() for rule in of_subject]

    def judge(self, header: Mapping[str, Any]) -> Allow | Refuse:
        """Whether an authentic message of an active peer is taken, at the session that it is addressed to."""
        if not self._rules and header["prio"] != "now" and not header["ct"].startswith(grants.TRANSCRIPT_TYPES):
            return Allow(header["prio"])  # the usual case, for which nobody decided anything
        return grants.decide(self.grants_of(PeerId(header["from"]), self._label_of(header.get("tos"))), header)

    def may_interrupt(self, peer: PeerId, session: SessionId | None) -> bool:
        """Whether `now` of a peer of the roster means now, at this session of ours."""
        return "now" in self.grants_of(peer, self._label_of(session)).permissions

    def grants_of(self, peer: PeerId, session: str = "") -> Grants:
        """What a peer of the roster may do at a session of ours, or at the peer as such."""
        user = self._membership.roster.members[peer].user
        fitting = [*self._rules.get(peer, ()), *self._rules.get(user, ())]
        return grants.grants_of(fitting, Sender(peer, user, user == self._keyring.user.user), session)

    async def decide(
        self, target: Target, permissions: Sequence[Permission], session: str, *, allowed: bool
    ) -> list[Rule]:
        """Grant or deny permissions to whom an address stands for; returns the rules that hold now."""
        made = [
            Rule(subject, session, permission, allowed) for subject in subjects_of(target) for permission in permissions
        ]
        await self._save(made)
        return made

    async def block(self, target: Target, session: str) -> list[Rule]:
        """Refuse everything of whom an address stands for, their single peers included."""
        blocks = [Rule(subject, session, BLOCK, True) for subject in subjects_of(target)]
        narrower = [rule for rule in self._concerning(target) if rule.permission == BLOCK and rule not in blocks]
        await self._save(blocks, drop=[rule for rule in narrower if not session or rule.session == session])
        return blocks

    async def unblock(self, target: Target) -> list[Rule]:
        """Lift every block of whom an address stands for; of a blocked user, for this peer alone."""
        lifted = [rule for rule in self._concerning(target) if rule.permission == BLOCK]
        await self._save([], drop=lifted)
        still = [peer for peer in target.peers if self.grants_of(peer).is_blocked]
        await self._save([Rule(peer, "", BLOCK, False) for peer in still])
        return lifted

    def _label_of(self, session: str | None) -> str:
        found = self._sessions.get(session) if session is not None else None
        return found.label if found is not None else ""

    def _concerning(self, target: Target) -> list[Rule]:
        """The rules about a target and about each of its peers."""
        subjects = {*subjects_of(target), *target.peers}
        return [rule for rule in self.rules() if rule.subject in subjects]

    async def _save(self, made: Sequence[Rule], drop: Sequence[Rule] = ()) -> None:
        mesh, now = self._membership.mesh, self._runtime.now()

        def write(connection: sqlite3.Connection) -> list[Rule]:
            rows.drop(connection, mesh, drop)
            rows.save(connection, mesh, made, now)
            return rows.load(connection, mesh)

        if made or drop:
            self._replace(await self._journal.write(write))

    def _replace(self, rules: Iterable[Rule]) -> None:
        self._rules.clear()
        for rule in rules:
            self._rules.setdefault(rule.subject, []).append(rule)


def subjects_of(target: Target) -> tuple[str, ...]:
    """The keys that a decision about an address is about: the user, also its later devices, or single peers."""
    return (target.user,) if target.user is not None else target.peers
