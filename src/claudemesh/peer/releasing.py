"""Messages that wait for a person: listing them, and what becomes of them (docs/spec/holding.md §3)."""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from claudemesh.errors import AddressError
from claudemesh.peer.batch import Outcomes
from claudemesh.peer.journal import held
from claudemesh.peer.journal.held import HeldRow
from claudemesh.peer.journal.inbox import InboxDraft, InboxRow
from claudemesh.peer.journal.outbox import PRIORITIES
from claudemesh.peer.parts import Parts
from claudemesh.peer.recording import DECLINED, surface
from claudemesh.peer.views import Received, read_header, read_row
from claudemesh.protocol.delivery import Stage
from claudemesh.types import MeshId, PeerId, UnixMillis

RELEASED: Final = "released"
"""Note of a `delivered` receipt: a person let a message in that was held."""
MIN_PREFIX: Final = 4


class HeldMessage(NamedTuple):
    """A message that waits for a person."""

    message: Received
    """As a reader would get it; `number` is that of its row among the held ones."""
    reason: str
    reached: int
    """How far it went: answers, or messages in the window."""
    allowed: int
    """How far it may go without a person."""


async def list_held(parts: Parts) -> list[HeldMessage]:
    """What waits, the oldest first."""
    rows = await parts.journal.read(lambda connection: held.load_waiting(connection, parts.mesh))
    return [HeldMessage(_show(parts, row), row.reason, row.reached, row.allowed) for row in rows]


async def find_held(parts: Parts, prefixes: Sequence[str]) -> list[int]:
    """The row numbers of messages by the beginnings of their ids.

    Raises:
        AddressError: `unknown_message`; a beginning is none or several.
    """
    waiting = await list_held(parts)
    numbers = []
    for prefix in prefixes:
        wanted = prefix.strip().lower()
        found = [one for one in waiting if one.message.id.startswith(wanted)] if len(wanted) >= MIN_PREFIX else []
        if len(found) != 1:
            raise AddressError("unknown_message", f"{prefix[:32]} is the beginning of {len(found)} held messages")
        numbers.append(found[0].message.number)
    return numbers


async def release(parts: Parts, numbers: Sequence[int]) -> list[HeldMessage]:
    """Put messages into the inbox as if they came now; each once, also when two people do it at a time."""
    mesh, now = parts.mesh, parts.runtime.now()

    def write(connection: sqlite3.Connection) -> tuple[list[HeldRow], Outcomes]:
        rows, outcomes = _waiting(connection, mesh, numbers), Outcomes()
        for row in rows:
            header, _ = read_header(row.frame)
            signed = {"ts": header.ts, "sess": header.sess}
            surface(connection, mesh, _draft(row, now), PRIORITIES[row.rank], signed, now, outcomes)
        held.drop(connection, [row.id for row in rows])
        held.owe(connection, mesh, rows, Stage.DELIVERED, RELEASED, now)
        return rows, outcomes

    rows, outcomes = await parts.journal.write(write)
    parts.receipts.wake()
    parts.incoming.announce(outcomes)
    return [HeldMessage(_show(parts, row), row.reason, row.reached, row.allowed) for row in rows]


async def refuse(parts: Parts, numbers: Sequence[int]) -> list[int]:
    """Drop the text of messages and tell their senders, signed; a copy that comes later is refused as well.

    Returns:
        The row numbers of those that still waited.
    """
    mesh, now = parts.mesh, parts.runtime.now()

    def write(connection: sqlite3.Connection) -> list[HeldRow]:
        rows = _waiting(connection, mesh, numbers)
        held.mark_refused(connection, [row.id for row in rows], now)
        held.owe(connection, mesh, rows, Stage.REFUSED, DECLINED, now)
        return rows

    rows = await parts.journal.write(write)
    parts.receipts.wake()
    return [row.id for row in rows]


def _waiting(connection: sqlite3.Connection, mesh: MeshId, numbers: Sequence[int]) -> list[HeldRow]:
    return [row for row in held.load_waiting(connection, mesh) if row.id in set(numbers)]


def _draft(row: HeldRow, now: UnixMillis) -> InboxDraft:
    header, _ = read_header(row.frame)
    return InboxDraft(
        message_id=row.message_id,
        sender=row.sender,
        session=row.session,
        reply_to=row.reply_to,
        frame=row.frame,
        signature=row.signature,
        attestation=row.attestation,
        accepted_at=row.accepted_at,
        received_at=now,
        channel=row.channel,
        gap=row.gap,
        is_stale=row.is_stale,
        rank=row.rank,
        is_ack=header.intent == "ack",
    )


def _show(parts: Parts, row: HeldRow) -> Received:
    """A held row as a reader would get it."""
    shown = InboxRow(
        row.id, row.message_id, row.sender, row.session, row.reply_to, row.frame, row.signature, row.attestation,
        row.accepted_at, row.received_at, None, row.channel, row.gap, row.is_stale, None,
    )  # fmt: skip
    names, channels = parts.names.address_of, parts.channels.directory.address_of
    return read_row(shown, names, channels, parts.remembered_since)


def of_sender(waiting: Sequence[HeldMessage], peers: Sequence[PeerId]) -> list[int]:
    """The row numbers of what these peers sent."""
    return [one.message.number for one in waiting if one.message.sender_id in peers]
