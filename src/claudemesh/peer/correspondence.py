"""Sending, asking and receiving: what the peer as such can do, and each of its sessions (docs/sdk.md)."""

from collections.abc import AsyncIterator

from claudemesh.errors import AddressError, Unreachable
from claudemesh.peer import contents, listing, tagging
from claudemesh.peer.addressing import Target
from claudemesh.peer.composing import Composed, compose
from claudemesh.peer.credentials import require_no_credentials
from claudemesh.peer.journal import posts
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.parts import Parts
from claudemesh.peer.reading import Reader
from claudemesh.peer.tagging import Reach
from claudemesh.peer.views import Reached, Received, Submitted
from claudemesh.protocol import chains
from claudemesh.protocol.chains import Chain
from claudemesh.protocol.delivery import Stage
from claudemesh.types import ChannelId, Intent, MessageId, Priority, SessionId


class Correspondent:
    """What the peer as such and each of its sessions can do: send, ask, receive."""

    def __init__(self, parts: Parts, session: SessionId | None) -> None:
        self._parts = parts
        self._session = session
        self._checks_texts = session is not None
        self._reader = Reader(parts, session)

    async def send(
        self,
        to: str | Received,
        text: str,
        *,
        priority: Priority = "next",
        reply_to: MessageId | None = None,
        expires_in_ms: int | None = None,
        deliver_in_ms: int | None = None,
        intent: Intent | None = None,
        id: MessageId | None = None,  # noqa: A002 – the name that the wire and every table use
        reach: Reach = "any",
        by_person: bool = False,
        by_agent: bool = False,
        allow_secret: bool | None = None,
    ) -> Submitted:
        """Put a message into the outbox, encrypted to its recipients as soon as there is a link.

        Args:
            to: An address (docs/sdk.md §3), or a received message: its channel; or its sender, and the session
                that sent it.
            text: Up to 512 KiB of UTF-8.
            reply_to: The message that this one answers; `to` a received message implies it.
            expires_in_ms, deliver_in_ms: Up to 14 days from now.
            id: The same id submitted again is the same message, and is not sent twice.
            reach: Of the sessions that carry a tag, `any` one (idle before busy, connected before not) or `all`.
            by_person: A person writes it: it begins a conversation, costs no budget, and is sent in a paused mesh too
                (docs/spec/holding.md).
            by_agent: An agent writes it; of a session that goes without saying.
            allow_secret: Send it although it looks like it holds a credential; None: a session's texts are looked
                through, those of the peer as such are not.

        Returns:
            The message's id, and the stage it has reached: `queued`.

        Raises:
            AddressError: Nothing was sent; `detail` lists the nearest names or the candidates.
            RosterConflict: `frozen`; nothing was sent.
            LocalError: The text is too large, or the disk refused it; `paused`, `budget_spent`, `credential`. Nothing
                was sent.
        """
        self._parts.membership.require_unfrozen()
        message = compose(
            self._parts.runtime,
            text,
            id=id,
            session=self._session,
            priority=priority,
            intent=intent,
            reply_to=reply_to,
            deliver_in_ms=deliver_in_ms,
            expires_in_ms=expires_in_ms,
        )
        self._parts.holding.require_may_send(self._session, by_person=by_person)
        if not allow_secret and (allow_secret is False or self._checks_texts):
            await require_no_credentials(text)
        if not by_person:
            message = message._replace(chain=await self._chain(to, message, by_agent=by_agent))
        if isinstance(to, Received):
            message = message._replace(reply_to=reply_to or to.id)
            if to.channel_id is not None:
                return await self._post(to.channel_id, message)
            return await self._send(message, self._reply_target(to))
        if to.strip()[:1] in ("#", "@"):
            return await self._post(self._parts.channels.directory.resolve(to), message)
        if to.strip().startswith(tagging.PREFIX):
            return await self._send_tagged(to, message, reach)
        return await self._send(message, self._parts.names.resolve(to))

    async def ask(
        self,
        to: str | Received,
        text: str,
        *,
        timeout_s: float = 60.0,
        priority: Priority = "next",
        allow_secret: bool | None = None,
    ) -> Received:
        """Send a question and wait for its reply, which no other reader then gets.

        Raises:
            Unreachable: `timeout`; the question stays sent, and a later reply arrives as a message.
            AddressError, RosterConflict, LocalError: As `send`.
        """
        message_id = MessageId(self._parts.runtime.entropy(16).hex())
        asked = self._parts.tracker.asked
        asked.add(message_id)
        try:
            await self.send(to, text, priority=priority, intent="request", id=message_id, allow_secret=allow_secret)
            reply = await self._reader.reply_to(message_id, timeout_s)
        finally:
            asked.discard(message_id)
        if reply is None:
            raise Unreachable("timeout", f"no reply to {message_id[:8]} within {timeout_s:g} s")
        self._saw(reply)
        return reply

    async def reply(self, message: Received, text: str, *, intent: Intent | None = None) -> Submitted:
        """Answer a message: in its channel, or to the session that sent it, wherever it is."""
        return await self.send(message, text, intent=intent)

    def messages(self) -> AsyncIterator[Received]:
        """Unseen messages, each once, and those that arrive; for a session those to it or to the peer as such.

        While the mesh is paused there are none, and while agents are not to be disturbed only those that may interrupt.
        """
        return self._reader.messages()

    async def inbox(self, *, unseen: bool = True, after: int | None = None, limit: int = 100) -> list[Received]:
        """Messages of the inbox, oldest first, without marking them as seen.

        Args:
            unseen: Only those that no reader took; else the last `limit` of all.
            after: Instead, all after this row number.
        """
        if after is not None:
            return await self._reader.list_after(after, limit)
        return await (self._reader.list_unseen(limit) if unseen else self._reader.list_latest(limit))

    async def unseen(self, after: int, limit: int = 100) -> list[Received]:
        """Messages after row number `after` that no reader took, oldest first, without marking them as seen."""
        return await self._reader.list_unseen(limit, after)

    async def mark_seen(self, *messages: Received) -> None:
        """Have messages not be listed as unseen again; no receipt is sent for that."""
        await self._reader.mark_seen([message.number for message in messages])

    async def mark(self, message: Received, stage: Stage, note: str = "") -> None:
        """State to the sender, signed, that a message came further here: only where there is evidence of it.

        Args:
            stage: `offered`, `read`, `held`, `refused` or `expired`.
            note: The adapter used or the reason, plain ASCII.
        """
        if stage not in contents.RECEIPT_STAGES:
            raise ValueError(f"a receipt cannot state {stage}")
        await self._reader.owe_receipt(message, stage, note)
        if stage in (Stage.OFFERED, Stage.READ):
            self._saw(message)

    async def _chain(self, to: str | Received, message: Composed, *, by_agent: bool) -> Chain | None:
        """Where a message that no person writes stands in its conversation."""
        if isinstance(to, Received):
            return chains.answer(to.cause)
        if message.reply_to is not None:
            return chains.answer(await self._reader.cause(message.reply_to))
        return self._unprompted_chain(message.id) or (chains.begin(message.id) if by_agent else None)

    def _unprompted_chain(self, message_id: MessageId) -> Chain | None:
        """Of a message that names none that it answers: the peer as such may be a person, so it begins anew."""
        return None

    def _saw(self, message: Received) -> None:
        """Whoever speaks here was shown a message."""

    async def _send(self, message: Composed, target: Target) -> Submitted:
        """Queue a copy for each peer."""
        await self._enqueue([message.draft(peer, target.session) for peer in target.peers])
        return Submitted(message.id, target.peers, Stage.QUEUED)

    async def _send_tagged(self, address: str, message: Composed, reach: Reach) -> Submitted:
        """Queue a copy for one session that carries a tag, or for each."""
        parts = self._parts
        await listing.refresh_presence(parts)
        peers = parts.names.known_peers()
        statuses = {one.sess: str(one.status) for peer in peers for one in parts.presence.sessions(peer.id)}
        found = tagging.find_tagged(address, peers, statuses, self._session)
        if reach == "any":
            found = [tagging.choose_one(found, parts.runtime.jitter())]
        reached = tuple(
            Reached(
                one.peer,
                one.session,
                f"{parts.names.address_of(one.peer)}/{one.label}",
                one.status,
                tagging.id_for(message.id, found, index),
            )
            for index, one in enumerate(found)
        )
        await self._enqueue([message._replace(id=one.id).draft(one.peer, one.session) for one in reached])
        return Submitted(message.id, tuple(dict.fromkeys(one.peer for one in reached)), Stage.QUEUED, reached=reached)

    async def _post(self, channel: ChannelId, message: Composed) -> Submitted:
        """Queue one post for a whole channel."""
        parts, roster = self._parts, self._parts.membership.roster
        if not roster.was_in_channel_at(parts.keyring.member, channel, roster.seq):
            raise AddressError("not_joined", parts.channels.directory.address_of(channel))
        draft = message.post(channel)
        parts.holding.note_sent(message.id, message.chain, (), self._session)
        await parts.journal.write(lambda connection: posts.enqueue(connection, parts.mesh, draft))
        parts.channels.posting.wake()
        if message.expires_at is not None:
            parts.expirer.wake()
        return Submitted(message.id, (), Stage.QUEUED, channel=channel)

    async def _enqueue(self, drafts: list[Draft]) -> None:
        parts = self._parts
        for draft in drafts:
            parts.holding.note_sent(draft.message_id, draft.chain, (draft.peer,), self._session)
        await parts.outbox.add(drafts)
        parts.outgoing.wake()
        if any(draft.expires_at is not None for draft in drafts):
            parts.expirer.wake()

    def _reply_target(self, message: Received) -> Target:
        """The session that sent a message, where its peer has named it; else its peer."""
        if not self._parts.membership.roster.is_active(message.sender_id):
            raise AddressError("unknown_address", f"{message.sender} is not in the mesh any more")
        known = self._parts.names.known_peer(message.sender_id)
        named = any(session.id == message.sender_session for session in known.sessions)
        return Target((message.sender_id,), message.sender_session if named else None)
