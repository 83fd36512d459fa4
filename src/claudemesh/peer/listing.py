"""Views of one peer's mesh, messages and peers, put together from the roster, the journal and presence."""

from contextlib import suppress
from typing import Final

from claudemesh.errors import AddressError, Refused, Unreachable
from claudemesh.peer.addressing import KnownSession
from claudemesh.peer.journal import held, inbox, outbox, posts, timeline
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.journal.timeline import TimelineRow
from claudemesh.peer.parts import Parts
from claudemesh.peer.views import MeshView, MessageStatus, PeerView, RecipientStatus, SessionView, Step
from claudemesh.protocol.delivery import Stage, Witness
from claudemesh.protocol.messages import SessionPresence
from claudemesh.types import ChannelId, MessageId, PeerId, SessionId, UnixMillis

PRESENCE_FRESH_MS: Final = 5_000
MIN_PREFIX: Final = 4


async def list_peers(parts: Parts) -> list[PeerView]:
    """Every active peer, with presence no older than `PRESENCE_FRESH_MS` where there is a link."""
    await refresh_presence(parts)
    return [view_peer(parts, member.id) for member in parts.membership.roster.active_members()]


async def refresh_presence(parts: Parts) -> None:
    """Ask the broker who is connected, unless it was asked a moment ago or cannot answer now."""
    presence, now = parts.presence, parts.runtime.now()
    if parts.uplink.is_open and now - presence.refreshed_at > PRESENCE_FRESH_MS:
        with suppress(Unreachable, Refused):
            await presence.refresh(await parts.uplink.line(0))


async def describe_mesh(parts: Parts) -> MeshView:
    """The mesh as this peer holds it."""
    mesh = parts.mesh
    roster, head, frozen = parts.membership.roster, parts.membership.head, parts.membership.frozen
    unsent, unposted, unseen, waiting = await parts.journal.read(
        lambda c: (
            outbox.count_open(c, mesh),
            posts.count_open(c, mesh),
            inbox.count_unseen(c, mesh),
            held.count_waiting(c, mesh),
        )
    )
    down = parts.uplink.down
    return MeshView(
        id=mesh,
        alias=parts.keyring.keys.alias,
        seq=roster.seq,
        head=roster.head,
        head_at=head.at if head is not None else UnixMillis(0),
        broker=parts.uplink.broker,
        broker_url=parts.uplink.url,
        connected=parts.uplink.is_open,
        down=f"{down.code} {down.detail}".strip() if down is not None else "",
        frozen=frozen.code if frozen is not None else "",
        audit=parts.auditor.finding.code if parts.auditor.finding is not None else "",
        peers=len(roster.active_members()),
        outbox_open=unsent + unposted,
        inbox_unseen=unseen,
        foreign_card=parts.cards.foreign,
        held=waiting,
        paused_since=parts.holding.quiet.paused_since,
        dnd_since=parts.holding.quiet.dnd_since,
    )


async def message_status(parts: Parts, message_id: MessageId) -> MessageStatus:
    """A sent message and its timeline, or `AddressError` (`unknown_message`)."""
    mesh = parts.mesh
    rows, post, steps = await parts.journal.read(
        lambda c: (
            outbox.find(c, mesh, message_id),
            posts.find(c, mesh, message_id),
            timeline.load(c, mesh, message_id),
        )
    )
    if post is not None:
        return await _post_status(parts, post, steps)
    if not rows:
        raise AddressError("unknown_message", message_id[:32])
    first = rows[0]
    return MessageStatus(
        id=first.message_id,
        text=first.body.decode(errors="replace"),
        priority=first.priority,
        created_at=first.created_at,
        expires_at=first.expires_at,
        reply_to=first.reply_to,
        recipients=tuple(_recipient(parts, row, steps) for row in rows),
    )


async def find_message(parts: Parts, prefix: str) -> MessageId:
    """The one sent or received message whose id begins with `prefix`, or `AddressError` (`unknown_message`)."""
    mesh, wanted = parts.mesh, prefix.strip().lower()
    if len(wanted) < MIN_PREFIX or any(digit not in "0123456789abcdef" for digit in wanted):
        raise AddressError("unknown_message", prefix[:32])
    found = await parts.journal.read(
        lambda c: (
            {*outbox.find_ids(c, mesh, wanted, 2), *posts.find_ids(c, mesh, wanted, 2)}
            | set(inbox.find_ids(c, mesh, wanted, 2))
        )
    )
    if len(found) != 1:
        raise AddressError("unknown_message", f"{prefix[:32]} is the beginning of {'several' if found else 'none'}")
    return found.pop()


def view_peer(parts: Parts, peer: PeerId) -> PeerView:
    """One peer of the roster, with presence as it was last heard of."""
    member = parts.membership.roster.members[peer]
    known = parts.names.known_peer(peer)
    connected = {session.sess: session for session in parts.presence.sessions(peer)}
    told = {session.id: session for session in known.sessions}
    sessions = tuple(
        _view_session(session, told.get(session), connected.get(session))
        for session in dict.fromkeys([*told, *connected])
    )
    return PeerView(
        id=peer,
        user=member.user,
        address=parts.names.address_of(peer),
        name=known.name,
        device=known.device,
        role=member.role,
        own=member.user == parts.keyring.user.user,
        me=peer == parts.keyring.member,
        online=bool(connected) or (peer == parts.keyring.member and parts.uplink.is_open),
        last_seen=parts.presence.of(peer).seen,
        sessions=sessions,
        as_of=parts.presence.refreshed_at,
    )


def _view_session(session: SessionId, told: KnownSession | None, connected: SessionPresence | None) -> SessionView:
    status, online = (str(connected.status), True) if connected is not None else ("", False)
    if told is None:
        return SessionView(session, "", status, online)
    return SessionView(session, told.label, status, online, told.reach, told.about, told.tags)


async def _post_status(parts: Parts, post: PostRow, steps: list[TimelineRow]) -> MessageStatus:
    """A post: how far it came at the broker, and at each member that stated something."""
    mesh = parts.mesh
    stated = await parts.journal.read(lambda c: posts.load_recipients(c, mesh, post.message_id))
    name = parts.channels.directory.address_of(post.channel)
    recipients = [RecipientStatus(post.channel, name, post.shown, _steps(parts, post.created_at, post.channel, steps))]
    for peer, shown in stated.items():
        if shown.stage is not Stage.QUEUED:
            taken = _steps(parts, post.created_at, peer, steps)
            recipients.append(RecipientStatus(peer, parts.names.address_of(peer), shown, taken))
    return MessageStatus(
        id=post.message_id,
        text=post.body.decode(errors="replace"),
        priority=post.priority,
        created_at=post.created_at,
        expires_at=post.expires_at,
        reply_to=post.reply_to,
        recipients=tuple(recipients),
        channel=post.channel,
    )


def _steps(parts: Parts, at: UnixMillis, of: PeerId | ChannelId, steps: list[TimelineRow]) -> tuple[Step, ...]:
    queued = Step(Stage.QUEUED, Witness.SENDER, at, parts.keyring.member, "", None)
    later = (
        Step(step.stage, step.witness, step.at, step.signer, step.detail, step.evidence)
        for step in steps
        if step.peer == of
    )
    return (queued, *later)


def _recipient(parts: Parts, row: OutboxRow, steps: list[TimelineRow]) -> RecipientStatus:
    taken = _steps(parts, row.created_at, row.peer, steps)
    return RecipientStatus(row.peer, parts.names.address_of(row.peer), row.shown, taken)
