"""Sending, and what is known of a message."""

import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec

from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.reading import show
from claudemesh.daemon.schema import messages as schema
from claudemesh.errors import AddressError, Unreachable, UsageError
from claudemesh.peer import Peer, Stage, Submitted
from claudemesh.peer.views import MessageStatus, PeerView, Reached, Received, RecipientStatus, SessionView, Step
from claudemesh.protocol import limits
from claudemesh.types import MessageId, PeerId, SessionId

ACCEPTED_WITHIN_S: Final = 1.0
"""How long a send that waits for nothing lets the broker answer, when the link is open."""
REPLIES_SEARCHED: Final = 1_000
_ID_DIGITS: Final = 32
_READY: Final = ("idle", "busy", "away", "")
_REACH: Final = ("wakeable", "tool", "turn", "asked", "")
_ON_THE_WAY: Final = [Stage.QUEUED, Stage.ACCEPTED, Stage.DELIVERED, Stage.OFFERED, Stage.READ, Stage.REPLIED]
"""What one member of a channel refused or holds says nothing of the others."""


class Messages:
    """What a person does with single messages."""

    def __init__(self, context: Context) -> None:
        self._home = context.home
        self._agents = context.agents

    async def send(self, args: schema.SendArgs, reply: Reply) -> schema.Sent:
        """Queue a message, and say how far it came.

        Raises:
            Unreachable: `timeout`; its `took_effect` is the stage that was reached.
        """
        peer = self._home.peer(args.mesh)
        speaker = self._home.correspondent(peer, args.session)
        reply_to = await peer.find_message(args.reply_to) if args.reply_to else None
        submitted = await speaker.send(
            args.to,
            args.text,
            priority=args.priority,
            reply_to=reply_to,
            expires_in_ms=args.expires_in_ms or None,
            intent=args.intent or None,
            id=_message_id(args.id),
            reach=args.reach,
            by_person=args.by_person,
            by_agent=args.by_agent,
            allow_secret=args.allow_secret,
        )
        agent = self._agents.speaking(peer, args.session) if args.session else None
        if agent is not None and reply_to is not None:
            await agent.confirm_reply(reply_to)
        if args.wait:
            await reply.progress(f"waiting until it is {args.wait}")
            status = await _wait(peer, submitted, args.wait, args.timeout_ms / 1000)
        else:
            status = await _accepted_soon(peer, submitted)
        replies = await _replies(peer, submitted.id) if args.wait == "replied" else []
        return await _sent(peer, submitted, status, replies, _session_of(peer, args.to))

    async def timeline(self, args: schema.TimelineArgs, reply: Reply) -> schema.Timeline:
        """Every stage of one message, with who signed it."""
        peer = await self._owner_of(args.mesh, args.id)
        message_id = await peer.find_message(args.id)
        try:
            return _sent_timeline(peer, await peer.status(message_id))
        except AddressError:
            return await _received_timeline(peer, message_id)

    async def _owner_of(self, mesh: str, prefix: str) -> Peer:
        """The peer that knows a message; with several meshes and none named, the one that has it."""
        peers = self._home.selected(mesh) or [self._home.peer(mesh)]
        for peer in peers[:-1]:
            with contextlib.suppress(AddressError):
                await peer.find_message(prefix)
                return peer
        return peers[-1]


async def _wait(peer: Peer, submitted: Submitted, stage: str, timeout_s: float) -> MessageStatus:
    try:
        return await peer.wait_for(submitted.id, stage, timeout_s)
    except Unreachable as error:
        reached = str(_overall(await peer.status(submitted.id)))
        late = Unreachable("timeout", f"{submitted.id} is {reached}, not {stage}, after {timeout_s:g} s")
        late.took_effect = reached  # type: ignore[attr-defined]
        raise late from error


async def _accepted_soon(peer: Peer, submitted: Submitted) -> MessageStatus:
    """The status after the moment that an open link takes to answer."""
    if peer.connected:
        with contextlib.suppress(Unreachable):
            return await peer.wait_for(submitted.id, Stage.ACCEPTED, ACCEPTED_WITHIN_S)
    return await peer.status(submitted.id)


def least(status: MessageStatus) -> Stage:
    """The stage of the recipient that is furthest behind."""
    order = list(Stage)
    return min((one.stage for one in status.recipients), key=order.index)


async def _replies(peer: Peer, message_id: MessageId) -> list[schema.Message]:
    found = await peer.inbox(unseen=False, limit=REPLIES_SEARCHED)
    return [show(peer, one) for one in found if one.reply_to == message_id]


def _session_of(peer: Peer, address: str) -> SessionId | None:
    """The session that an address stands for; None where it stands for anything else."""
    if address.strip().startswith(("#", "@", "tag:")):
        return None
    try:
        return peer.resolve(address).session
    except AddressError:
        return None  # it went away after the message was queued


async def _sent(
    peer: Peer, submitted: Submitted, status: MessageStatus, replies: list[schema.Message], session: SessionId | None
) -> schema.Sent:
    view = await peer.describe_mesh()
    await peer.refresh_presence()
    if submitted.reached:
        recipients = [await _reached(peer, one) for one in submitted.reached]
    else:
        recipients = [_recipient(peer, status.id, one, session) for one in status.recipients]
    return schema.Sent(
        id=status.id,
        mesh=peer.alias,
        stage=_overall(status),
        priority=status.priority,
        channel=_channel_of(peer, status),
        to=recipients,
        expires_at=_expires_at(status),
        link="open" if view.connected else view.down.split(" ", 1)[0] or "connecting",
        replies=replies,
    )


async def _reached(peer: Peer, reached: Reached) -> schema.Recipient:
    """One session that a tag reaches, by the copy that it gets."""
    status = await peer.status(reached.id)
    copy = next(one for one in status.recipients if one.peer == reached.peer)
    shown = _recipient(peer, reached.id, copy, reached.session)
    return msgspec.structs.replace(
        shown, address=reached.address, status=reached.status, online=bool(reached.status) if peer.connected else None
    )


def _overall(status: MessageStatus) -> Stage:
    """One word for all recipients; of a post, what the member that is furthest ahead has stated."""
    if status.channel is None:
        return least(status)
    stated = [one.stage for one in status.recipients if one.stage in _ON_THE_WAY]
    return max(stated, key=_ON_THE_WAY.index, default=status.recipients[0].stage)


def _channel_of(peer: Peer, status: MessageStatus) -> str:
    return peer.channel_name(status.channel) if status.channel is not None else ""


def _recipient(
    peer: Peer, message_id: MessageId, status: RecipientStatus, session: SessionId | None = None
) -> schema.Recipient:
    view = peer.view(status.peer)
    agents = [one for one in view.sessions if one.online and one.label] if view is not None else []
    meant = _readiest([one for one in agents if session in (None, one.id)])
    address = status.address
    if session is not None:
        address = f"{address}/{peer.session_label(PeerId(status.peer), session) or session[:8]}"
    shown = next((step for step in reversed(status.steps) if step.stage == status.stage), None)
    return schema.Recipient(
        address=address,
        key=status.peer,
        id=message_id,
        status=meant.status if meant is not None else "",
        stage=status.stage,
        code=shown.detail if shown is not None else "",
        online=_is_online(peer, view, session, meant),
        last_seen_at=view.last_seen if view is not None else 0,
        reach=meant.reach if meant is not None else "",
        agents=len(agents),
    )


def _readiest(sessions: Sequence[SessionView]) -> SessionView | None:
    """Which of them will be shown a message first."""
    return min(sessions, key=lambda one: (_READY.index(one.status), _REACH.index(one.reach)), default=None)


def _is_online(peer: Peer, view: PeerView | None, session: SessionId | None, meant: SessionView | None) -> bool | None:
    """Whether the session, or the peer as such, is connected; None where that is not known."""
    if view is None or not peer.connected:
        return None
    return view.online if session is None else meant is not None


def _signer_address(peer: Peer, recipient: RecipientStatus, step: Step) -> str:
    """Who signed a step: a peer, or the session of its that had the evidence, while that is known by its label."""
    if step.witness != "peer":
        return ""
    label = peer.session_label(PeerId(recipient.peer), SessionId(step.signer))
    return f"{recipient.address}/{label}" if label else recipient.address


def _sent_timeline(peer: Peer, status: MessageStatus) -> schema.Timeline:
    steps = [
        schema.Step(
            stage=step.stage,
            at=step.at,
            to=one.address,
            witness=step.witness.value,
            signer="" if step.witness == "sender" else step.signer,
            signer_address=_signer_address(peer, one, step),
            code=step.detail,
        )
        for one in status.recipients
        for step in one.steps
    ]
    return schema.Timeline(
        id=status.id,
        mesh=peer.alias,
        direction="sent",
        address=_channel_of(peer, status) or ", ".join(one.address for one in status.recipients),
        channel=_channel_of(peer, status),
        stage=_overall(status),
        priority=status.priority,
        reply_to=status.reply_to or "",
        sent_at=status.created_at,
        expires_at=_expires_at(status),
        steps=steps,
    )


async def _received_timeline(peer: Peer, message_id: MessageId) -> schema.Timeline:
    found = [one for one in await peer.inbox(unseen=False, limit=REPLIES_SEARCHED) if one.id == message_id]
    if not found:
        raise AddressError("unknown_message", message_id)
    message = found[0]
    steps = _way_here(peer, message)
    for row in await peer.offers_of(message):
        if row.handed_at is not None and row.begins == 0:
            steps.append(_received_step(peer, "offered", row.handed_at, row.label, row.adapter, ""))
        if row.confirmed_at is not None and row.ends >= row.length:
            steps.append(_received_step(peer, "read", row.confirmed_at, row.label, row.evidence, row.session))
    return schema.Timeline(
        id=message.id,
        mesh=peer.alias,
        direction="received",
        address=message.sender,
        channel=message.channel,
        stage=max((Stage(step.stage) for step in steps), key=_ON_THE_WAY.index),
        priority=message.priority,
        reply_to=message.reply_to or "",
        sent_at=message.sent_at,
        expires_at=message.expires_at or 0,
        steps=steps,
    )


def _way_here(peer: Peer, message: Received) -> list[schema.Step]:
    """What came before: signed by the sender in the message itself, told by the broker, and seen here."""
    own = peer.address_of(peer.id)
    sealed = schema.Step(
        stage="queued",
        at=message.sent_at,
        to=own,
        witness="peer",
        signer=message.sender_session,
        signer_address=message.sender,
        code="",
    )
    taken = schema.Step(
        stage="accepted", at=message.accepted_at, to=own, witness="broker", signer="", signer_address="", code=""
    )
    return [sealed, taken, _received_step(peer, "delivered", message.received_at, "", "", "")]


def _received_step(peer: Peer, stage: str, at: int, label: str, why: str, signer: str) -> schema.Step:
    """A stage that this machine states of a message that it received."""
    own = peer.address_of(peer.id)
    address = f"{own}/{label}" if label else own
    return schema.Step(
        stage=stage, at=at, to=address, witness="peer", signer=signer or peer.id, signer_address=address, code=why
    )


def _expires_at(status: MessageStatus) -> int:
    return status.expires_at or status.created_at + limits.QUEUE_LIFETIME_MS


def _message_id(text: str) -> MessageId | None:
    if not text:
        return None
    if len(text) != _ID_DIGITS or any(digit not in "0123456789abcdef" for digit in text):
        raise UsageError("usage", "a message id has 32 hex digits")
    return MessageId(text)
