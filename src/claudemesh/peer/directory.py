"""What channels are called: told end to end, never by the broker (docs/spec/channels.md §9).

The names of open channels and of groups are posted where everybody reads; that of a private channel goes to its
members alone. Whoever joins the mesh is told what was posted before by a few members, whichever are there first.
"""

import asyncio
import difflib
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh.errors import AddressError, LocalError
from claudemesh.peer import channel_contents, channel_names, events
from claudemesh.peer.channel_contents import DIRECTORY, MAX_LISTINGS, Listing
from claudemesh.peer.channel_names import GENERAL_NAME, Named
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal, outbox, posts
from claudemesh.peer.journal import channels as rows
from claudemesh.peer.journal.channels import NameRow
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.journal.posts import PostDraft
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.roster import GENERAL, SPACE, Channel
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, UnixMillis

TELLERS: Final = 4
"""Members that tell a newcomer what everybody may know; which ones follows from their keys and its own."""
_ID_DIGITS: Final = 8


class Directory:
    """The names of every channel that this peer may know."""

    def __init__(
        self,
        membership: Membership,
        keyring: Keyring,
        journal: Journal,
        hub: Hub,
        runtime: Runtime,
        outbox_changed: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._keyring = keyring
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._outbox_changed = outbox_changed
        self._names: dict[ChannelId, NameRow] = {}
        self._told: set[tuple[ChannelId, PeerId]] = set()
        self._told_up_to = -1
        """Who was admitted up to this seq was told; only who came later is looked at."""
        self._changed = asyncio.Event()
        self._shown: dict[ChannelId, str] = {}
        self._shown_at = -1

    async def load(self) -> None:
        """Read the names from the journal, and whom they were told."""
        mesh = self._membership.mesh
        names, self._told = await self._journal.read(lambda c: (rows.load_names(c, mesh), rows.load_told(c, mesh)))
        self._names = {row.channel: row for row in names}

    # Names

    def channels(self) -> list[Channel]:
        """The channels that people see, in the order of the roster."""
        return [channel for channel in self._membership.roster.channels.values() if channel_names.is_shown(channel)]

    def address_of(self, channel: ChannelId) -> str:
        """How a channel is written: its name with its sign, or the beginning of its id while it has none."""
        return self._addresses().get(channel) or f"#{channel[:_ID_DIGITS]}"

    def topic_of(self, channel: ChannelId) -> str:
        """What its creator said that it is about."""
        row = self._names.get(channel)
        return "" if row is None else row.topic

    def resolve(self, address: str) -> ChannelId:
        """The channel that an address stands for.

        Raises:
            AddressError: `unknown_address`, with the nearest names.
        """
        wanted = address.strip()
        shown = self._addresses()
        for channel, name in shown.items():
            if name == wanted or (len(wanted) > _ID_DIGITS and f"{name[0]}{channel}".startswith(wanted)):
                return channel
        nearest = difflib.get_close_matches(wanted, sorted(shown.values()), n=3, cutoff=0.5)
        raise AddressError("unknown_address", f"{wanted}; did you mean {', '.join(nearest)}?" if nearest else wanted)

    def require_free(self, name: str, kind: str) -> None:
        """Refuse (`AddressError`, `name_taken`) a name that can be mistaken for one that is known."""
        taken = channel_names.imitated(name, "@" if kind == "group" else "#", self._named())
        if taken is not None:
            raise AddressError("name_taken", f"{name} looks like {taken}")

    # Telling

    async def propose(self, channel: ChannelId, name: str, topic: str) -> None:
        """Remember what a channel will be called that is about to be made."""
        now, mesh = self._runtime.now(), self._membership.mesh
        row = NameRow(channel, name, topic, self._keyring.member, now, now, announced=False)
        await self._journal.write(lambda connection: rows.save_name(connection, mesh, row))
        self._names[channel] = row
        self._forget()

    async def withdraw(self, channel: ChannelId) -> None:
        """The channel was not made."""
        mesh = self._membership.mesh
        await self._journal.write(lambda connection: rows.drop_name(connection, mesh, channel))
        self._names.pop(channel, None)
        self._forget()

    def announce(self) -> None:
        """The roster or a name changed: somebody may have to be told."""
        self._forget()
        self._changed.set()

    async def tell(self, channel: ChannelId, member: PeerId) -> None:
        """Tell a member the name of a channel that it was added to."""
        row = self._names.get(channel)
        if row is not None:
            await self._tell([(member, channel, [row])])

    def take(self, listings: Iterable[Listing], teller: PeerId) -> "DirectoryTaken":
        """Decide which names to believe.

        The creator's word replaces any other; of all others the first one stays. Of a private channel, only its
        members are believed, and only by its members.
        """
        now = self._runtime.now()
        fresh = []
        for listing in listings:
            channel = self._membership.roster.channels.get(ChannelId(listing.id))
            if channel is not None and self._is_believed(channel, listing, teller):
                known_at = self._known_at(channel.id, listing, now)
                at = UnixMillis(listing.at)
                fresh.append(NameRow(channel.id, listing.name, listing.topic, teller, at, known_at))
        return DirectoryTaken(self, fresh)

    def settle(self, names: Iterable[NameRow]) -> None:
        """Names that were told are durable."""
        for row in names:
            self._names[row.channel] = row
        self._forget()
        self._hub.publish(events.ChannelsChanged())

    async def run(self) -> None:
        """Tell names until cancelled, with or without a link."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._post_own()
                seq = self._membership.roster.seq
                await self._tell(self._untold())
                self._told_up_to = seq
            except LocalError:  # the disk is full: they are told later
                await asyncio.sleep(self._runtime.tempo.disk_retry_ms / 1000)
                self._changed.set()

    # Private

    def _named(self) -> list[Named]:
        named = []
        for channel in self.channels():
            row = self._names.get(channel.id)
            if channel.id == GENERAL:
                named.append(Named(channel, GENERAL_NAME, 0))
            elif row is not None:
                named.append(Named(channel, row.name, row.known_at))
        return named

    def _addresses(self) -> dict[ChannelId, str]:
        roster = self._membership.roster
        if self._shown_at != roster.seq:
            nameless = {one.id: channel_names.sigil(one) + one.id[:_ID_DIGITS] for one in self.channels()}
            self._shown = nameless | channel_names.shown_names(self._named())
            self._shown_at = roster.seq
        return self._shown

    def _forget(self) -> None:
        self._shown_at = -1

    def _is_believed(self, channel: Channel, listing: Listing, teller: PeerId) -> bool:
        if not channel_names.is_shown(channel) or channel.id == GENERAL:
            return False
        roster, own = self._membership.roster, self._keyring.member
        if channel.kind == "private" and not {teller, own} <= roster.channel_members(channel.id):
            return False
        known = self._names.get(channel.id)
        if known is None:
            return True
        if teller != channel.creator:
            return False
        return known.teller != teller or listing.at > known.named_at

    def _known_at(self, channel: ChannelId, listing: Listing, now: UnixMillis) -> UnixMillis:
        known = self._names.get(channel)
        return known.known_at if known is not None and known.name == listing.name else now

    async def _post_own(self) -> None:
        """Post the names of channels that this peer made, once their entries are in the roster."""
        roster, mesh = self._membership.roster, self._membership.mesh
        fresh = [row for row in self._names.values() if not row.announced and row.channel in roster.channels]
        if not fresh:
            return
        public = [row for row in fresh if roster.channels[row.channel].kind != "private"]
        draft = PostDraft(
            message_id=self._new_id(),
            channel=SPACE,
            content_type=DIRECTORY,
            body=_write(public),
            created_at=self._runtime.now(),
            intent="inform",
        )

        def write(connection: sqlite3.Connection) -> None:
            if public:
                posts.enqueue(connection, mesh, draft)
            rows.mark_announced(connection, mesh, [row.channel for row in fresh])

        await self._journal.write(write)
        for row in fresh:
            self._names[row.channel] = row._replace(announced=True)
        self._outbox_changed()

    def _untold(self) -> list[tuple[PeerId, ChannelId, list[NameRow]]]:
        """Newcomers of the mesh, and of private channels that this peer made, who were told nothing by it."""
        roster, own = self._membership.roster, self._membership.roster.member(self._keyring.member)
        if own is None or not own.active:
            return []
        untold: list[tuple[PeerId, ChannelId, list[NameRow]]] = []
        for member in roster.admitted_since(max(own.since_seq, self._told_up_to)):
            if (SPACE, member.id) not in self._told:
                untold.append((member.id, SPACE, self._older_names(member.id, member.since_seq)))
        for row in self._names.values():
            channel = roster.channels.get(row.channel)
            if channel is None or channel.kind != "private" or channel.creator != own.id:
                continue
            for peer in roster.channel_members(channel.id) - {own.id}:
                if (channel.id, peer) not in self._told:
                    untold.append((peer, channel.id, [row]))
        return untold

    def _older_names(self, newcomer: PeerId, since_seq: int) -> list[NameRow]:
        """What was posted before a peer joined, as far as this peer is to tell it."""
        roster, own = self._membership.roster, self._keyring.member
        older = []
        for row in self._names.values():
            channel = roster.channels.get(row.channel)
            if channel is not None and channel.kind != "private" and channel.since_seq < since_seq:
                older.append((channel, row))
        if not older:
            return []
        chosen = own in self._tellers(newcomer, since_seq)
        return [row for channel, row in older if chosen or channel.creator == own]

    def _tellers(self, newcomer: PeerId, since_seq: int) -> list[PeerId]:
        elder = [member.id for member in self._membership.roster.active_members() if member.since_seq < since_seq]
        return sorted(elder, key=lambda peer: hashlib.sha256(f"{peer}{newcomer}".encode()).digest())[:TELLERS]

    async def _tell(self, untold: Sequence[tuple[PeerId, ChannelId, Sequence[NameRow]]]) -> None:
        if not untold:
            return
        mesh = self._membership.mesh
        drafts = [draft for member, _, names in untold for draft in self._drafts(member, names)]

        def write(connection: sqlite3.Connection) -> None:
            outbox.enqueue(connection, mesh, drafts)
            for member, channel, _ in untold:
                rows.mark_told(connection, mesh, channel, member)

        await self._journal.write(write)
        self._told.update((channel, member) for member, channel, _ in untold)
        self._outbox_changed()

    def _drafts(self, member: PeerId, names: Sequence[NameRow]) -> Iterator[Draft]:
        for start in range(0, len(names), MAX_LISTINGS):
            yield Draft(
                message_id=self._new_id(),
                peer=member,
                content_type=DIRECTORY,
                body=_write(names[start : start + MAX_LISTINGS]),
                created_at=self._runtime.now(),
                priority="low",
                intent="ack",
            )

    def _new_id(self) -> MessageId:
        return MessageId(self._runtime.entropy(16).hex())


@dataclass(frozen=True, slots=True)
class DirectoryTaken:
    """Names that a member told and that are believed."""

    directory: Directory
    names: list[NameRow]

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Store them."""
        for row in self.names:
            rows.save_name(connection, mesh, row)
        return False

    def settle(self) -> None:
        """Use them."""
        if self.names:
            self.directory.settle(self.names)


def _write(names: Sequence[NameRow]) -> bytes:
    return channel_contents.write_directory([Listing(row.channel, row.name, row.named_at, row.topic) for row in names])
