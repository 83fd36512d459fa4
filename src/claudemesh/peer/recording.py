"""What a batch of judged envelopes leaves in the journal, in one transaction (docs/spec/delivery.md §3).

The inbox row, the replay window that admitted it and the receipt that it owes become durable together; only
then is anything acknowledged, shown or answered.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from claudemesh.crypto import statements
from claudemesh.peer import contents, events
from claudemesh.peer.batch import Batch, Judged, Notice, Outcomes, Unopened
from claudemesh.peer.contents import Nack, Profile, Receipt
from claudemesh.peer.grants import LOWERED, Allow, Refuse
from claudemesh.peer.journal import channels, epochs, held, inbox, keys, names, outbox, timeline
from claudemesh.peer.journal.inbox import InboxDraft, ReceiptDue
from claudemesh.peer.journal.outbox import RANKS
from claudemesh.peer.journal.timeline import Evidence
from claudemesh.peer.quiet import Quiet
from claudemesh.peer.receiving import Authentic
from claudemesh.protocol import delivery
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.types import Digest, MeshId, PeerId, Priority, UnixMillis, UserId

DECLINED: Final = "declined"
"""Note of a `refused` receipt: a person did not want a message that was held."""
HOLD_FULL: Final = "hold_full"
"""Note of a `refused` receipt: too many messages of its sender wait for a person already."""


def record_batch(
    connection: sqlite3.Connection, mesh: MeshId, batch: Batch, users: Mapping[PeerId, UserId], now: UnixMillis
) -> Outcomes:
    """Write a batch; may run again from the start, so it changes nothing but the database."""
    outcomes = Outcomes()
    for digest, expires_at, statement in batch.attestations:
        keys.save_attestation(connection, mesh, Digest(digest), expires_at, statement)
    keys.save_windows(connection, mesh, batch.windows)
    _record_channels(connection, mesh, batch, now, outcomes)
    for judged in batch.judged:
        match judged.content:
            case str():
                _record_message(connection, mesh, judged, batch.quiet, now, outcomes)
            case list() as receipts:
                _record_receipts(connection, mesh, judged.message, receipts, now, outcomes)
            case Nack() as nack:
                _record_nack(connection, mesh, judged.message.sender, nack, outcomes)
            case Profile() as profile:
                _record_profile(connection, mesh, judged.message.sender, profile, users, now, outcomes)
            case effect:
                outcomes.outbox_changed |= effect.record(connection, mesh, now)
    for notice in batch.notices:
        _record_notice(connection, mesh, notice, now, outcomes)
    for unopened in batch.unopened:
        _record_unopened(connection, mesh, unopened, now, outcomes)
    return outcomes


def _record_channels(
    connection: sqlite3.Connection, mesh: MeshId, batch: Batch, now: UnixMillis, outcomes: Outcomes
) -> None:
    channels.save_windows(connection, mesh, batch.channel_windows)
    for taken in batch.epochs:
        epochs.save(connection, mesh, taken.held, taken.statement, None)
    for statement in batch.wanted:
        epochs.want(connection, mesh, statements.statement_digest(statement, "epoch"), statement, now)
    for parked, question in batch.parked:
        epochs.park(connection, mesh, parked, now)
        if inbox.note_nack(connection, mesh, question.peer, parked.epoch[:32], now):
            outbox.enqueue(connection, mesh, [question])
            outcomes.outbox_changed = True
    epochs.unpark(connection, batch.unparked)


def surface(
    connection: sqlite3.Connection,
    mesh: MeshId,
    draft: InboxDraft,
    priority: Priority,
    header: Mapping[str, Any],
    now: UnixMillis,
    outcomes: Outcomes,
) -> None:
    """Put a message into the inbox, once; a reply is the word of its session that the message it answers was read.

    Args:
        priority: As it is taken.
        header: Its `ts` and `sess`, as signed.
    """
    number = inbox.add(connection, mesh, draft)
    if number is None:
        return
    outcomes.arrived.append(
        events.MessageArrived(
            number, draft.message_id, draft.sender, draft.session, draft.reply_to, priority, draft.channel
        )
    )
    if draft.reply_to is not None:
        outcomes.recorded.append(
            timeline.record(
                connection,
                mesh,
                draft.reply_to,
                draft.sender,
                Claim(Stage.REPLIED, Witness.PEER),
                at=header["ts"],
                recorded_at=now,
                signer=header["sess"],
                detail=draft.message_id,
            )
        )


def _record_message(
    connection: sqlite3.Connection, mesh: MeshId, judged: Judged, quiet: Quiet, now: UnixMillis, outcomes: Outcomes
) -> None:
    message, permit = judged.message, judged.permit
    header = message.header
    if isinstance(permit, Refuse):
        if not inbox.holds(connection, mesh, message.sender, message.message_id):
            _record_refusal(connection, mesh, judged, permit.code, now, outcomes)
        else:
            _owe(connection, mesh, judged, Stage.DELIVERED, "", now, outcomes)
        return
    if (judged.hold is not None or "hop" in header or "root" in header) and _record_held(
        connection, mesh, judged, permit, now, outcomes
    ):
        return
    # A copy under a new counter means that the sender may not know: the receipt is owed again.
    withheld = quiet.withheld(permit.priority)
    note = withheld or (LOWERED if permit.priority != header["prio"] else "")
    _owe(connection, mesh, judged, Stage.HELD if withheld else Stage.DELIVERED, note, now, outcomes)
    surface(connection, mesh, _draft(judged, permit, now), permit.priority, header, now, outcomes)


def _record_held(
    connection: sqlite3.Connection, mesh: MeshId, judged: Judged, permit: Allow, now: UnixMillis, outcomes: Outcomes
) -> bool:
    """Keep a message of an agent for a person, or repeat what became of it; False where it is taken like any other."""
    message, hold = judged.message, judged.hold
    before = held.find(connection, mesh, message.sender, message.message_id)
    if before is not None:
        stage, note = (Stage.HELD, before.reason) if before.refused_at is None else (Stage.REFUSED, DECLINED)
        _owe(connection, mesh, judged, stage, note, now, outcomes)
        return True
    if hold is None or inbox.holds(connection, mesh, message.sender, message.message_id):
        return False
    draft, expires_at = _draft(judged, permit, now), message.header.get("exp")
    if not held.add(connection, mesh, draft, hold, is_confirmed=judged.is_confirmed, expires_at=expires_at):
        _record_refusal(connection, mesh, judged, HOLD_FULL, now, outcomes)
        return True
    _owe(connection, mesh, judged, Stage.HELD, hold.reason, now, outcomes)
    outcomes.held.append(events.MessageHeld(message.message_id, message.sender, hold.reason))
    return True


def _draft(judged: Judged, permit: Allow, now: UnixMillis) -> InboxDraft:
    message = judged.message
    header = message.header
    return InboxDraft(
        message_id=message.message_id,
        sender=message.sender,
        session=header.get("tos"),
        reply_to=header.get("re"),
        frame=message.opened.frame,
        signature=message.opened.signature,
        attestation=message.attestation.digest,
        accepted_at=judged.accepted_at,
        received_at=now,
        channel=message.channel,
        gap=message.gap,
        is_stale=message.is_stale,
        rank=RANKS[permit.priority],
        is_ack=header.get("intent") == "ack",
    )


def _owe(
    connection: sqlite3.Connection,
    mesh: MeshId,
    judged: Judged,
    stage: Stage,
    note: str,
    now: UnixMillis,
    outcomes: Outcomes,
) -> None:
    if judged.is_confirmed:
        message = judged.message
        due = ReceiptDue(message.sender, message.message_id, stage, now, detail=note)
        inbox.add_receipts_due(connection, mesh, [due])
        outcomes.receipts_due = True


def _record_refusal(
    connection: sqlite3.Connection, mesh: MeshId, judged: Judged, code: str, now: UnixMillis, outcomes: Outcomes
) -> None:
    """A text that this machine does not take: its sender is told, nobody here is shown it."""
    message = judged.message
    inbox.quarantine(connection, mesh, code, message.sender, now)
    outcomes.refused.append(events.EnvelopeRefused(code, message.sender))
    _owe(connection, mesh, judged, Stage.REFUSED, code, now, outcomes)


def _record_receipts(
    connection: sqlite3.Connection,
    mesh: MeshId,
    message: Authentic,
    receipts: list[Receipt],
    now: UnixMillis,
    outcomes: Outcomes,
) -> None:
    """Receipts count only for messages that were addressed to the peer that signs them."""
    opened = message.opened
    evidence = timeline.add_evidence(
        connection, Evidence("frame", opened.frame, opened.signature, message.attestation.digest)
    )
    for receipt in receipts:
        outcomes.recorded.append(
            timeline.record(
                connection,
                mesh,
                receipt.message_id,
                message.sender,
                Claim(receipt.stage, Witness.PEER),
                at=receipt.at,
                recorded_at=now,
                signer=message.session,
                detail=receipt.note,
                evidence=evidence,
            )
        )


def _record_nack(connection: sqlite3.Connection, mesh: MeshId, sender: PeerId, nack: Nack, outcomes: Outcomes) -> None:
    for row in outbox.find(connection, mesh, nack.message_id):
        if row.peer != sender or row.state != Outcome.ACCEPTED.value:
            continue
        state = delivery.Settled(Outcome.ACCEPTED, resealed=bool(row.resealed))
        after, _ = delivery.step(state, delivery.RecipientNacked(nack.code), UnixMillis(0))
        if isinstance(after, delivery.Queued):
            outbox.mark_queued(connection, row.id, resealed=True)
            outcomes.outbox_changed = True


def _record_profile(
    connection: sqlite3.Connection,
    mesh: MeshId,
    sender: PeerId,
    profile: Profile,
    users: Mapping[PeerId, UserId],
    now: UnixMillis,
    outcomes: Outcomes,
) -> None:
    names.save_profile(connection, mesh, sender, contents.write_profile(profile))
    if profile.name:
        names.pin(connection, mesh, profile.name, users[sender], now)
    outcomes.profiles.append((sender, profile))


def _record_notice(
    connection: sqlite3.Connection, mesh: MeshId, notice: Notice, now: UnixMillis, outcomes: Outcomes
) -> None:
    evidence = timeline.add_evidence(connection, notice.evidence)
    outcomes.recorded.append(
        timeline.record(
            connection,
            mesh,
            notice.message_id,
            notice.peer,
            notice.claim,
            at=notice.at,
            recorded_at=now,
            signer=notice.signer,
            detail=notice.detail,
            evidence=evidence,
        )
    )


def _record_unopened(
    connection: sqlite3.Connection, mesh: MeshId, unopened: Unopened, now: UnixMillis, outcomes: Outcomes
) -> None:
    if unopened.code == "replay" and inbox.holds(connection, mesh, unopened.sender, unopened.message_id):
        return  # the same bytes again, as after a lost ack: acknowledged anew, without a word
    inbox.quarantine(connection, mesh, unopened.code, unopened.sender, now)
    outcomes.refused.append(events.EnvelopeRefused(unopened.code, unopened.sender))
    nack = unopened.nack
    if nack is not None and inbox.note_nack(connection, mesh, unopened.sender, unopened.message_id, now):
        outbox.enqueue(connection, mesh, [nack])
        outcomes.outbox_changed = True
