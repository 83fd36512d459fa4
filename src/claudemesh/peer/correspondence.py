"""Sending, asking and receiving: what the peer as such can do, and each of its sessions (docs/sdk.md)."""

from collections.abc import AsyncIterator

from claudemesh.errors import AddressError, Unreachable, UsageError
from claudemesh.peer import contents, sealing
from claudemesh.peer.addressing import Target
from claudemesh.peer.assembly import Parts
from claudemesh.peer.journal import outbox
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.reading import Reader
from claudemesh.peer.views import Received, Submitted
from claudemesh.protocol import limits
from claudemesh.protocol.delivery import Stage
from claudemesh.types import Intent, MessageId, Priority, SessionId, UnixMillis


class Correspondent:
    """What the peer as such and each of its sessions can do: send, ask, receive."""

    def __init__(self, parts: Parts, session: SessionId | None) -> None:
        self._parts = parts
        self._session = session
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
    ) -> Submitted:
        """Put a message into the outbox, encrypted to its recipients as soon as there is a link.

        Args:
            to: An address (docs/sdk.md §3), or a received message: its sender, and the session that sent it.
            text: Up to 512 KiB of UTF-8.
            reply_to: The message that this one answers; `to` a received message implies it.
            expires_in_ms, deliver_in_ms: Up to 14 days from now.
            id: The same id submitted again is the same message, and is not sent twice.

        Returns:
            The message's id, and the stage it has reached: `queued`.

        Raises:
            AddressError: Nothing was sent; `detail` lists the nearest names or the candidates.
            RosterConflict: `frozen`; nothing was sent.
            LocalError: The text is too large, or the disk refused it; nothing was sent.
        """
        parts = self._parts
        parts.membership.require_unfrozen()
        body = text.encode()
        sealing.check_body(body)
        if isinstance(to, Received):
            target = self._reply_target(to)
            reply_to = reply_to or to.id
        else:
            target = parts.names.resolve(to)
        now = parts.runtime.now()
        message_id = id or MessageId(parts.runtime.entropy(16).hex())
        drafts = [
            Draft(
                message_id=message_id,
                peer=peer,
                content_type=contents.TEXT,
                body=body,
                created_at=now,
                priority=priority,
                intent=intent,
                reply_to=reply_to,
                peer_session=target.session,
                session=self._session,
                not_before=_in(now, deliver_in_ms),
                expires_at=_in(now, expires_in_ms),
            )
            for peer in target.peers
        ]
        await parts.journal.write(lambda connection: outbox.enqueue(connection, parts.mesh, drafts))
        parts.outgoing.wake()
        if expires_in_ms is not None:
            parts.expirer.wake()
        return Submitted(message_id, target.peers, Stage.QUEUED)

    async def ask(
        self, to: str | Received, text: str, *, timeout_s: float = 60.0, priority: Priority = "next"
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
            await self.send(to, text, priority=priority, intent="request", id=message_id)
            reply = await self._reader.reply_to(message_id, timeout_s)
        finally:
            asked.discard(message_id)
        if reply is None:
            raise Unreachable("timeout", f"no reply to {message_id[:8]} within {timeout_s:g} s")
        return reply

    async def reply(self, message: Received, text: str, *, intent: Intent | None = None) -> Submitted:
        """Answer a message: to the session that sent it, wherever it is."""
        return await self.send(message, text, intent=intent)

    def messages(self) -> AsyncIterator[Received]:
        """Unseen messages, each once, and those that arrive; for a session those to it or to the peer as such."""
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

    def _reply_target(self, message: Received) -> Target:
        """The session that sent a message, where its peer has named it; else its peer."""
        if not self._parts.membership.roster.is_active(message.sender_id):
            raise AddressError("unknown_address", f"{message.sender} is not in the mesh any more")
        known = self._parts.names.known_peer(message.sender_id)
        named = any(session.id == message.sender_session for session in known.sessions)
        return Target((message.sender_id,), message.sender_session if named else None)


class PeerSession(Correspondent):
    """A session of this peer, with keys of its own: one for each agent that runs under it."""

    def __init__(self, parts: Parts, session: SessionId, label: str) -> None:
        super().__init__(parts, session)
        self.id = session
        self.label = label

    async def close(self) -> None:
        """End the session: it leaves presence, and its keys are forgotten."""
        self._parts.sessions.close(self.id)
        self._parts.names.announce()
        await self._parts.uplink.end_session(self.id)


def _in(now: UnixMillis, delay_ms: int | None) -> UnixMillis | None:
    if delay_ms is None:
        return None
    if not 0 < delay_ms <= limits.QUEUE_LIFETIME_MS:
        raise UsageError("usage", "a message waits or lasts for more than 0 and at most 14 days")
    return UnixMillis(now + delay_ms)
