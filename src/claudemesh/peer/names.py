"""Names: what peers call themselves, pinned to user keys at first sight; and telling ours to the others.

Names travel only inside encrypted messages (`cm/profile`). Source: docs/spec/delivery.md §6.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Container, Mapping
from typing import Final

from claudemesh.errors import AddressError, LocalError, Malformed
from claudemesh.peer import addressing, contents, events
from claudemesh.peer.addressing import KnownPeer, KnownSession, Target
from claudemesh.peer.contents import Profile, SessionLabel
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal, outbox
from claudemesh.peer.journal import names as rows
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.presence import PresenceView
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Sessions
from claudemesh.protocol.roster import Member
from claudemesh.types import MessageId, PeerId, SessionId, UserId

PROFILES_PER_ROUND: Final = 64
ROUND_PAUSE_S: Final = 0.05


class NameBook:
    """The names of every peer, and the distribution of this peer's own."""

    def __init__(
        self,
        membership: Membership,
        keyring: Keyring,
        sessions: Sessions,
        presence: PresenceView,
        journal: Journal,
        hub: Hub,
        runtime: Runtime,
        outbox_changed: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._keyring = keyring
        self._sessions = sessions
        self._presence = presence
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._outbox_changed = outbox_changed
        self._profiles: dict[PeerId, Profile] = {}
        self._bearers: dict[str, dict[UserId, None]] = {}
        """For each name its users, in the order in which they were seen with it."""
        self._changed = asyncio.Event()
        self._resolved: dict[str, Target] = {}
        self._known: list[KnownPeer] | None = None
        self._frozen_bearers: dict[str, frozenset[UserId]] | None = None
        self._addresses: dict[PeerId, str] | None = None
        self._resolved_at = -1
        self._sent: dict[PeerId, str] | None = None
        """Which profile each peer was sent last, as in the journal."""
        self._told = ("", -1)
        """A profile, and the seq up to which everybody was sent it: only who came later is looked at."""

    async def load(self) -> None:
        """Read profiles and pins from the journal, and pin our own name first."""
        mesh, own = self._membership.mesh, self._keyring
        if own.keys.name:
            name, user, now = own.keys.name, UserId(own.user.user), self._runtime.now()
            await self._journal.write(lambda connection: rows.pin(connection, mesh, name, user, now))
        for member, content in (await self._journal.read(lambda c: rows.load_profiles(c, mesh))).items():
            try:
                self._profiles[member] = contents.read_profile(content)
            except Malformed:
                continue  # of a newer version; its peer sends it again
        for name, user in await self._journal.read(lambda c: rows.load_pins(c, mesh)):
            self._bearers.setdefault(name, {})[user] = None
        inviter = self._inviter()
        if inviter is not None:
            self._bearers.setdefault(own.keys.inviter, {})[inviter.user] = None

    def take_profile(self, peer: PeerId, profile: Profile) -> None:
        """A peer's profile is in the journal, with its name pinned."""
        self._profiles[peer] = profile
        self._forget()
        if not profile.name:
            return
        bearers = self._bearers.setdefault(profile.name, {})
        known = len(bearers)
        bearers[self._membership.roster.members[peer].user] = None
        if len(bearers) > max(known, 1):
            self._hub.publish(events.NameAmbiguous(profile.name))

    async def reject(self, name: str, user: UserId) -> None:
        """A person decided that this user does not bear this name, which frees it for the other."""
        mesh = self._membership.mesh
        await self._journal.write(lambda connection: rows.unpin(connection, mesh, name, user))
        self._bearers.get(name, {}).pop(user, None)
        self._forget()

    async def confirm(self, peer: PeerId) -> str:
        """A person decided that the user of a peer bears its name: every other user of it loses it."""
        user = self._membership.roster.members[peer].user
        profile = self._own_profile() if peer == self._keyring.member else self._profiles.get(peer)
        if profile is None or not profile.name:
            return ""
        mesh, now, others = self._membership.mesh, self._runtime.now(), self._bearers.get(profile.name, {})
        for other in [other for other in others if other != user]:
            await self.reject(profile.name, other)
        await self._journal.write(lambda connection: rows.pin(connection, mesh, profile.name, user, now))
        self._bearers.setdefault(profile.name, {})[user] = None
        self._forget()
        return profile.name

    def resolve(self, address: str) -> Target:
        """What an address stands for; raises as `addressing.resolve`."""
        self._forget_if_moved()
        target = self._resolved.get(address)
        if target is None:
            if self._known is None:
                self._known = self.known_peers()
            try:
                target = addressing.resolve(address, self._known, self.bearers(), self._keyring.member)
            except AddressError:
                # Once more, so that the candidates are listed with the presence of this moment.
                return addressing.resolve(address, self.known_peers(), self.bearers(), self._keyring.member)
            self._resolved[address] = target
        return target

    def address_of(self, peer: PeerId) -> str:
        """An address that means exactly this peer; of one that was removed, what it was called while nobody else is."""
        self._forget_if_moved()
        if self._addresses is None:
            self._addresses = addressing.shortest_addresses(self.known_peers(), self.bearers())
        if peer not in self._addresses:
            self._addresses[peer] = self._former_address(peer, set(self._addresses.values()))
        return self._addresses[peer]

    def _former_address(self, peer: PeerId, taken: Container[str]) -> str:
        if peer not in self._membership.roster.members:
            return peer[:16]
        known = self.known_peer(peer)
        is_clear = known.name and len(self._bearers.get(known.name, ())) <= 1 and known.address not in taken
        return known.address if is_clear else peer[:16]

    def _forget_if_moved(self) -> None:
        """What was resolved holds for one roster and one set of names."""
        if self._resolved_at != self._membership.roster.seq:
            self._resolved_at = self._membership.roster.seq
            self._forget()

    def _forget(self) -> None:
        self._known = None
        self._frozen_bearers = None
        self._addresses = None
        self._resolved.clear()

    def bearers(self) -> dict[str, frozenset[UserId]]:
        """For each name, the user that was first seen with it, and each other one that is in the mesh still.

        So whoever takes the name of somebody who left is noticed, and an impostor that was removed leaves no trace.
        """
        if self._frozen_bearers is None:
            roster = self._membership.roster
            self._frozen_bearers = {
                name: frozenset(user for place, user in enumerate(users) if place == 0 or roster.peers_of_user(user))
                for name, users in self._bearers.items()
            }
        return self._frozen_bearers

    def known_peers(self) -> list[KnownPeer]:
        """Every active peer of the roster with its names, this one among them."""
        return [self.known_peer(member.id) for member in self._membership.roster.active_members()]

    def known_peer(self, peer: PeerId) -> KnownPeer:
        """One peer of the roster, active or not, with its names."""
        user = self._membership.roster.members[peer].user
        profile = self._own_profile() if peer == self._keyring.member else self._profiles.get(peer)
        online = peer == self._keyring.member or bool(self._presence.of(peer).sessions)
        if profile is None:
            inviter = self._inviter()
            hint = self._keyring.keys.inviter if inviter is not None and inviter.id == peer else ""
            return KnownPeer(peer, user, hint if user in self._bearers.get(hint, ()) else "", online=online)
        name = profile.name
        if user not in self._bearers.get(name, ()) and peer != self._keyring.member:
            name = ""  # a person rejected it
        sessions = tuple(_known_session(one) for one in profile.sessions)
        return KnownPeer(peer, user, name, profile.device, sessions, online)

    def announce(self) -> None:
        """Our profile or the roster changed: some peers do not have the newest one."""
        self._forget()
        self._changed.set()

    async def run(self) -> None:
        """Send our profile to every peer that does not have it, a few at a time, until cancelled."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                while await self._send_some():
                    self._outbox_changed()
                    await asyncio.sleep(ROUND_PAUSE_S)
            except LocalError:  # the disk is full: they are told later
                await asyncio.sleep(self._runtime.tempo.disk_retry_ms / 1000)
                self._changed.set()

    async def _send_some(self) -> int:
        if self._membership.roster.seq < 0 or not self._keyring.keys.name:
            return 0
        mesh, seq = self._membership.mesh, self._membership.roster.seq
        body = contents.write_profile(self._own_profile())
        digest = hashlib.sha256(body).hexdigest()
        if self._sent is None:
            self._sent = await self._journal.read(lambda connection: rows.load_profiles_sent(connection, mesh))
        untold = self._untold(digest, self._sent)
        missing = untold[:PROFILES_PER_ROUND]
        drafts = [self._draft(peer, body) for peer in missing]

        def write(connection: sqlite3.Connection) -> None:
            for draft in drafts:
                outbox.purge_unsent(connection, mesh, contents.PROFILE, draft.peer)
                rows.save_profile_sent(connection, mesh, draft.peer, digest)
            outbox.enqueue(connection, mesh, drafts)

        if drafts:
            await self._journal.write(write)
            self._sent.update(dict.fromkeys(missing, digest))
        if len(missing) == len(untold):
            self._told = (digest, seq)
        return len(drafts)

    def _untold(self, digest: str, sent: Mapping[PeerId, str]) -> list[PeerId]:
        """The peers that do not have the profile with this digest."""
        told, up_to = self._told
        members = self._membership.roster.admitted_since(up_to if told == digest else -1)
        own = self._keyring.member
        return [member.id for member in members if member.id != own and sent.get(member.id) != digest]

    def _draft(self, peer: PeerId, body: bytes) -> Draft:
        return Draft(
            message_id=MessageId(self._runtime.entropy(16).hex()),
            peer=peer,
            content_type=contents.PROFILE,
            body=body,
            created_at=self._runtime.now(),
            priority="low",
            intent="ack",
        )

    def _inviter(self) -> Member | None:
        """Who made the invite that admitted this peer; None when its link did not say what it is called."""
        roster = self._membership.roster
        own = roster.member(self._keyring.member)
        if not self._keyring.keys.inviter or own is None or own.invite is None:
            return None
        return roster.member(roster.invites[own.invite].issuer)

    def _own_profile(self) -> Profile:
        labels = [
            SessionLabel(session.id, session.label, list(session.tags), session.reach, session.about)
            for session in self._sessions.agents()
            if session.label
        ]
        keys = self._keyring.keys
        return Profile(keys.name, keys.device, labels[-contents.MAX_PROFILE_SESSIONS :])


def _known_session(told: SessionLabel) -> KnownSession:
    reach = told.reach if told.reach in contents.REACHES else ""
    return KnownSession(SessionId(told.sess), told.label, tuple(told.tags), reach, told.about)
