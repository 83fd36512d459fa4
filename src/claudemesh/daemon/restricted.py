"""`claudemesh --session FILE`: one message by a session that was handed out, without a daemon."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

from claudemesh.daemon.schema import messages as schema
from claudemesh.peer import Peer, Submitted
from claudemesh.peer.credentials import require_no_credentials
from claudemesh.protocol import limits
from claudemesh.types import MessageId, Priority


def send(
    path: Path, to: str, text: str, priority: Priority, reply_to: str, expires_in_ms: int, *, allow_secret: bool
) -> dict[str, Any]:
    """Send, and return what the operation `send` of a daemon would answer; raises as `RestrictedSession.send`."""
    if not allow_secret:
        asyncio.run(require_no_credentials(text))
    answer: dict[str, Any] = msgspec.to_builtins(asyncio.run(_send(path, to, text, priority, reply_to, expires_in_ms)))
    return answer


async def _send(path: Path, to: str, text: str, priority: Priority, reply_to: str, expires_in_ms: int) -> schema.Sent:
    async with Peer.open_session_bundle(path) as session:
        submitted = await session.send(
            to,
            text,
            priority=priority,
            reply_to=MessageId(reply_to) if reply_to else None,
            expires_in_ms=expires_in_ms or None,
        )
        reached = [(session.address_of(peer), str(peer)) for peer in submitted.peers] or [(to, "")]
        return schema.Sent(
            id=submitted.id,
            mesh=session.alias,
            stage=submitted.stage,
            priority=priority,
            channel="" if submitted.peers else to,
            to=[_recipient(submitted, address, key) for address, key in reached],
            expires_at=time.time_ns() // 1_000_000 + (expires_in_ms or limits.QUEUE_LIFETIME_MS),
            link="open",
            replies=[],
        )


def _recipient(submitted: Submitted, address: str, key: str) -> schema.Recipient:
    """Whether it is online, nobody asked."""
    return schema.Recipient(
        address=address,
        key=key,
        id=submitted.id,
        status="",
        stage=submitted.stage,
        code="",
        online=None,
        last_seen_at=0,
        agents=1,
    )
