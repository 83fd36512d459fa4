"""Messages drawn as blocks that fit into what a host takes at once; a long one is cut, and its rest is asked for."""

from typing import Final, NamedTuple

from claudemesh.daemon.rendering import TRUST_WORDS, MessageView, render
from claudemesh.daemon.trust import trust_of
from claudemesh.errors import UsageError
from claudemesh.peer import Peer, Received

REPLY_TOOL: Final = 'mesh_send(to="{to}", reply_to="{id}", text=…)'
MIN_LIMIT_CHARACTERS: Final = 2_000
_CLOSING_ROOM: Final = 200
_DOUBTFUL: Final = "it may have been shown to you before"


class Piece(NamedTuple):
    """A part of one message, drawn."""

    text: str
    begins: int
    ends: int


def view_of(peer: Peer, message: Received, *, is_doubtful: bool = False) -> MessageView:
    """What may be shown of a received message; who sent it is taken from the roster and the pinned names alone."""
    view = peer.view(message.sender_id)
    label = peer.session_label(message.sender_id, message.sender_session)
    return MessageView(
        id=message.id,
        sender=f"{message.sender}/{label}" if label else message.sender,
        fingerprint=message.sender_id[:16],
        trust=TRUST_WORDS[trust_of(view) if view is not None else "unknown"],
        mesh=peer.alias,
        priority=message.priority,
        sent_at=message.sent_at,
        text=message.text,
        reply_to=message.reply_to or "",
        channel=message.channel,
        missing=message.gap,
        stale=message.is_stale,
        may_repeat=message.may_repeat,
        shared_by=message.shared_by,
        note=_DOUBTFUL if is_doubtful else "",
    )


def units(text: str) -> int:
    """Length as most hosts count it: UTF-16 code units."""
    return len(text) + sum(character > "\uffff" for character in text)


def room_for_blocks(limit_characters: int) -> int:
    """What a limit leaves after the closing line.

    Raises:
        UsageError: It is so small that not even the labels of a message fit.
    """
    if limit_characters < MIN_LIMIT_CHARACTERS:
        raise UsageError("usage", f"a message is offered in at least {MIN_LIMIT_CHARACTERS} characters")
    return limit_characters - _CLOSING_ROOM


def fit(view: MessageView, reply: str, room: int, begins: int = 0, *, cut: bool = True) -> Piece | None:
    """Draw as much of a message as fits, from character `begins` of its body.

    Args:
        room: UTF-16 code units.
        cut: Whether a part of it is welcome; otherwise all or nothing.

    Returns:
        None when it does not fit.
    """
    whole = render(view, reply, start=begins)
    if units(whole) <= room:
        return Piece(whole, begins, len(view.text))
    if not cut:
        return None
    low, high = begins, min(len(view.text), begins + room)
    while low < high:
        middle = (low + high + 1) // 2
        if units(render(view, reply, middle, begins)) <= room:
            low = middle
        else:
            high = middle - 1
    return Piece(render(view, reply, low, begins), begins, low) if low > begins else None


def closing(cut_ids: list[str], waiting: int) -> str:
    """What is left, and how to read it; empty when there is nothing."""
    lines = [f'The rest of message {one}: mesh_inbox(id="{one}").' for one in cut_ids]
    if waiting:
        lines.append(f"{waiting} more unread: mesh_inbox().")
    return "\n".join(lines)
