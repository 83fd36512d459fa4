"""Composing: a text with everything but its recipients, and the drafts that are made of it."""

from typing import NamedTuple

from claudemesh.errors import UsageError
from claudemesh.peer import contents, sealing
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.journal.posts import PostDraft
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits
from claudemesh.protocol.chains import Chain
from claudemesh.types import ChannelId, Intent, MessageId, PeerId, Priority, SessionId, UnixMillis


class Composed(NamedTuple):
    """A text with everything but its recipients."""

    id: MessageId
    body: bytes
    at: UnixMillis
    session: SessionId | None
    """The session that writes it; None for the peer as such."""
    priority: Priority
    intent: Intent | None
    reply_to: MessageId | None
    not_before: UnixMillis | None
    expires_at: UnixMillis | None
    chain: Chain | None = None

    def draft(self, peer: PeerId, peer_session: SessionId | None) -> Draft:
        """The copy for one peer, or for one session of it."""
        return Draft(
            message_id=self.id,
            peer=peer,
            content_type=contents.TEXT,
            body=self.body,
            created_at=self.at,
            priority=self.priority,
            intent=self.intent,
            reply_to=self.reply_to,
            peer_session=peer_session,
            session=self.session,
            not_before=self.not_before,
            expires_at=self.expires_at,
            chain=self.chain,
        )

    def post(self, channel: ChannelId) -> PostDraft:
        """The one post for a whole channel."""
        return PostDraft(
            message_id=self.id,
            channel=channel,
            content_type=contents.TEXT,
            body=self.body,
            created_at=self.at,
            priority=self.priority,
            intent=self.intent,
            reply_to=self.reply_to,
            session=self.session,
            not_before=self.not_before,
            expires_at=self.expires_at,
            chain=self.chain,
        )


def compose(
    runtime: Runtime,
    text: str,
    *,
    id: MessageId | None,  # noqa: A002 – the name that the wire and every table use
    session: SessionId | None,
    priority: Priority,
    intent: Intent | None,
    reply_to: MessageId | None,
    deliver_in_ms: int | None,
    expires_in_ms: int | None,
) -> Composed:
    """A text as a message of now.

    Args:
        id: None makes a new one.
        deliver_in_ms, expires_in_ms: Up to 14 days from now.

    Raises:
        LocalError: The text is too large.
        UsageError: A time is none that a message waits or lasts for.
    """
    body = text.encode()
    sealing.check_body(body)
    now = runtime.now()
    return Composed(
        id or MessageId(runtime.entropy(16).hex()),
        body,
        now,
        session,
        priority,
        intent,
        reply_to,
        _in(now, deliver_in_ms),
        _in(now, expires_in_ms),
    )


def _in(now: UnixMillis, delay_ms: int | None) -> UnixMillis | None:
    if delay_ms is None:
        return None
    if not 0 < delay_ms <= limits.QUEUE_LIFETIME_MS:
        raise UsageError("usage", "a message waits or lasts for more than 0 and at most 14 days")
    return UnixMillis(now + delay_ms)
