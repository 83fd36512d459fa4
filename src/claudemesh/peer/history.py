"""What was said in a channel: kept for a while by those who were there, and shared by hand (docs/spec/channels.md §6).

What is shared is proven twice: the epoch's secret fits the record that the posts name, and each post carries its
author's signature. The sharer vouches for nothing but the time at which the broker took them.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from claudemesh.crypto import channel_envelope, identity, statements
from claudemesh.crypto.epochs import channel_key
from claudemesh.crypto.frames import Opened, Sealed
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import EnvelopeRefused, EpochRefused, Invalid, Malformed
from claudemesh.peer import channel_contents, contents
from claudemesh.peer.channel_contents import HISTORY, PAST, Evidenced, Past, PastPost
from claudemesh.peer.epochs import Epochs
from claudemesh.peer.journal import Journal, inbox, keys, outbox, posts
from claudemesh.peer.journal.inbox import InboxDraft
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.repairing import EpochTaken
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import codec, limits
from claudemesh.protocol.epoch_handover import share_history, take_history
from claudemesh.protocol.epoch_rules import check_place
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.message_rules import check_origin
from claudemesh.protocol.messages import Post
from claudemesh.protocol.roster import Relation
from claudemesh.types import ChannelId, Digest, MeshId, MessageId, PeerId, UnixMillis

HISTORY_MESSAGES: Final = 1_000
"""Received posts of one channel that are kept, and own ones beside them."""

MAX_TAKEN: Final = 256


@dataclass(frozen=True, slots=True)
class Shared:
    """What a peer was given of a channel's history."""

    peer: PeerId
    messages: int
    epochs: int


class History:
    """The kept posts of one peer's channels."""

    def __init__(
        self, membership: Membership, epochs: Epochs, keyring: Keyring, journal: Journal, runtime: Runtime
    ) -> None:
        self._membership = membership
        self._epochs = epochs
        self._keyring = keyring
        self._journal = journal
        self._runtime = runtime
        self._taken: dict[Digest, HeldEpoch] = {}
        """Epochs of the batch that is being judged: posts under them may stand in the same batch."""

    @property
    def member(self) -> PeerId:
        """Whose history this is."""
        return self._keyring.member

    async def share(self, channel: ChannelId, member: PeerId, current: HeldEpoch, limit: int) -> Shared:
        """Queue what is kept of a channel for one of its members: epochs first, then the posts of others under them.

        Args:
            current: An epoch that the member holds; the older secrets are encrypted under it.
        """
        mesh = self._membership.mesh
        kept = [
            (post, epoch)
            for post in await self._load_evidence(channel, limit)
            if (epoch := self._epoch_of(post, besides=member)) is not None
        ]
        older = {epoch.id: epoch for _, epoch in kept if epoch.id != current.id}
        bodies = [
            (HISTORY, channel_contents.write_body(share_history(old, current, self._runtime.entropy(24))))
            for old in older.values()
        ]
        bodies += [(PAST, body) for body in channel_contents.write_pasts(channel, [post for post, _ in kept])]
        drafts = [self._draft(member, content_type, body) for content_type, body in bodies]
        await self._journal.write(lambda connection: outbox.enqueue(connection, mesh, drafts))
        return Shared(member, len(kept), len(older))

    def take_epoch(self, body: Body, sharer: PeerId) -> EpochTaken:
        """Check an older epoch that a member shares; only members of its scope give it, and only to members.

        Raises:
            Malformed, Unopenable, EpochRefused: As `take_history`; also `not_entitled`.
        """
        held = take_history(body, self._epochs.book, self._runtime.now())
        roster, record = self._membership.roster, held.record
        if not {sharer, self._keyring.member} <= roster.channel_members(record.scope):
            raise EpochRefused("not_entitled")
        if roster.relate(record.roster_seq, record.roster_head) is not Relation.KNOWN:
            raise EpochRefused("epoch", "of another roster")
        check_place(record, roster)
        if len(self._taken) >= MAX_TAKEN:
            self._taken.clear()
        self._taken[held.id] = held
        return EpochTaken(self._epochs, held)

    def take_past(self, past: Past, sharer: PeerId) -> "PastTaken":
        """Check posts that a member shares; one that proves nothing is left out.

        Raises:
            EnvelopeRefused: `not_in_channel`; the sharer or this peer is not in the channel.
        """
        roster = self._membership.roster
        if past.chan not in roster.channels:
            raise EnvelopeRefused("not_in_channel")
        if not {sharer, self._keyring.member} <= roster.channel_members(past.chan):
            raise EnvelopeRefused("not_in_channel")
        attestations = {}
        for statement in past.att:
            attestation = identity.open_attestation(statement)
            attestations[str(attestation.digest)] = (attestation, statement)
        drafts, kept = [], {}
        for post in past.p:
            known = attestations.get(post.a)
            if known is None:
                continue
            try:
                opened = self._open_past(post, past.chan, known[0])
            except Invalid:
                continue
            drafts.append(self._inbox_draft(post, past.chan, opened, known[0], sharer))
            kept[str(known[0].digest)] = known
        return PastTaken(drafts, list(kept.values()))

    def missing_epoch(self, past: Past) -> Digest | None:
        """The first epoch of shared posts that is neither held nor shared; None when there is none."""
        attestations = {str(one.digest): one for one in map(identity.open_attestation, past.att)}
        for post in past.p:
            if post.a not in attestations:
                continue
            with suppress(Invalid):
                epoch = channel_envelope.read_frame(post.f, post.s, attestations[post.a]).header["ep"]
                if self._epochs.find(epoch) is None and epoch not in self._taken:
                    return Digest(epoch)
        return None

    # Private

    async def _load_evidence(self, channel: ChannelId, limit: int) -> list[Evidenced]:
        """The kept posts of a channel with what proves them, received and own, in the order of the broker."""
        mesh = self._membership.mesh

        def load(connection: sqlite3.Connection) -> list[Evidenced]:
            found = []
            for row in inbox.load_of_channel(connection, mesh, channel, limit):
                statement = keys.load_attestation(connection, mesh, row.attestation)
                if statement is not None:
                    found.append(Evidenced(row.frame, row.signature, row.attestation, statement, row.accepted_at))
            for own in posts.load_of_channel(connection, mesh, channel, limit):
                statement = keys.load_attestation(connection, mesh, own.attestation or "")
                if statement is None or own.envelope is None or own.accepted_at is None:
                    continue
                opened = self._open_own(own.envelope, statement)
                if opened is not None:
                    found.append(
                        Evidenced(opened.frame, opened.signature, str(own.attestation), statement, own.accepted_at)
                    )
            return sorted(found, key=lambda post: post.accepted_at)[-limit:]

        return await self._journal.read(load)

    def _open_own(self, envelope: bytes, statement: Statement) -> Opened | None:
        post = codec.decode_envelope(envelope)
        if not isinstance(post, Post):
            return None
        epoch = self._epochs.find(post.ep)
        if epoch is None:
            return None
        sealed = Sealed(statements.from_base64url(post.nonce), statements.from_base64url(post.ct))
        key = channel_key(epoch.secret, ChannelId(post.chan))
        return channel_envelope.open_sealed(sealed, identity.open_attestation(statement), key)

    def _epoch_of(self, post: Evidenced, besides: PeerId) -> HeldEpoch | None:
        """The epoch of a post; None when it is not held, or the author is one who has the post."""
        attestation = identity.open_attestation(post.statement)
        if attestation.member == besides:
            return None
        opened = channel_envelope.read_frame(post.frame, post.signature, attestation)
        return self._epochs.find(opened.header["ep"])

    def _open_past(self, post: PastPost, channel: ChannelId, attestation: Attestation) -> Opened:
        """Check what a live post is checked for, as of the roster that its author saw."""
        roster = self._membership.roster
        opened = channel_envelope.read_frame(post.f, post.s, attestation)
        header = opened.header
        check_origin(header, attestation)
        epoch = self._epochs.find(header["ep"]) or self._taken.get(header["ep"])
        if attestation.mesh != roster.mesh or "chan" not in attestation.capabilities:
            raise EnvelopeRefused("att")
        if header["chan"] != channel or header["ct"] != contents.TEXT or attestation.member == self._keyring.member:
            raise EnvelopeRefused("misdirected")
        if epoch is None or epoch.record.scope != roster.scope_of(channel):
            raise EnvelopeRefused("misdirected", "under an epoch that is not shared")
        if roster.relate(header["rs"], Digest(header["rh"])) is not Relation.KNOWN:
            raise EnvelopeRefused("unproven_roster_claim")
        if not roster.was_in_channel_at(attestation.member, channel, header["rs"]):
            raise EnvelopeRefused("not_in_channel")
        if epoch.record.roster_seq > header["rs"]:
            raise EnvelopeRefused("epoch_from_future")
        skew = limits.CLOCK_SKEW_MS
        if not attestation.issued_at - skew <= header["ts"] <= min(attestation.expires_at, self._runtime.now() + skew):
            raise EnvelopeRefused("time")
        try:
            opened.body.decode()
        except UnicodeDecodeError as error:
            raise Malformed("frame", "the text is not UTF-8") from error
        return opened

    def _inbox_draft(
        self, post: PastPost, channel: ChannelId, opened: Opened, attestation: Attestation, sharer: PeerId
    ) -> InboxDraft:
        now = self._runtime.now()
        return InboxDraft(
            message_id=opened.header["id"],
            sender=attestation.member,
            session=None,
            reply_to=opened.header.get("re"),
            frame=post.f,
            signature=post.s,
            attestation=attestation.digest,
            accepted_at=UnixMillis(min(post.at, now)),
            received_at=now,
            seen_at=now,
            channel=channel,
            teller=sharer,
        )

    def _draft(self, member: PeerId, content_type: str, body: bytes) -> Draft:
        return Draft(
            message_id=MessageId(self._runtime.entropy(16).hex()),
            peer=member,
            content_type=content_type,
            body=body,
            created_at=self._runtime.now(),
            priority="low",
            intent="inform",
        )


@dataclass(frozen=True, slots=True)
class PastTaken:
    """Posts that a member shared and that prove themselves."""

    drafts: Sequence[InboxDraft]
    attestations: Iterable[tuple[Attestation, Statement]]

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Store them beside what came by itself; nobody is told of them as if they were new."""
        for attestation, statement in self.attestations:
            keys.save_attestation(connection, mesh, attestation.digest, attestation.expires_at, statement)
        for draft in self.drafts:
            inbox.add(connection, mesh, draft)
        return False

    def settle(self) -> None:
        """Nothing in memory changes."""
