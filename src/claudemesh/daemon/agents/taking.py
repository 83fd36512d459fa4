"""Taking messages for one agent's session: chosen, drawn to fit, and durable as offered before anything is returned."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from claudemesh.daemon.agents.composing import Piece, closing, fit, room_for_blocks, units, view_of
from claudemesh.errors import AddressError
from claudemesh.peer import Peer, Received
from claudemesh.peer.journal.offers import OfferDraft, Offerer, OfferRow, Wanted
from claudemesh.peer.peer_session import PeerSession
from claudemesh.types import SessionId

_BETWEEN: Final = "\n\n"
_RANKS: Final = {"now": 0, "next": 1, "low": 2}


class Face(NamedTuple):
    """What an agent's session is in one mesh."""

    peer: Peer
    session: PeerSession


class Place(NamedTuple):
    """One mesh of an agent's session, and what may be shown of it now."""

    face: Face
    wanted: Wanted


class Offer(NamedTuple):
    """A message, or a part of one, that is to be put before a model."""

    id: int
    """0 for one that was shown to its end before: there is nothing more to confirm."""
    message_id: str
    mesh: str
    sender: str
    priority: str
    text: str
    """Its block, as docs/spec/rendering.md draws it."""
    is_whole: bool
    """Whether it reaches to the end of the message."""


class Taken(NamedTuple):
    """What to show now."""

    offers: tuple[Offer, ...] = ()
    text: str = ""
    """Every block, and a line about what is left; empty when there is nothing to show."""
    waiting: int = 0
    """Unread messages that are left for this session."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The offers that wait to be handed over and confirmed."""
        return tuple(one.id for one in self.offers if one.id)


class Request(NamedTuple):
    """How something is to be shown."""

    adapter: str
    limit_characters: int
    reply: str
    messages: int


class _Candidate(NamedTuple):
    """A message that may be shown, from where on, and the doubtful offers of it that this one stands for."""

    place: Place
    message: Received
    begins: int
    replaces: tuple[int, ...] = ()


class _Drawn(NamedTuple):
    candidate: _Candidate
    piece: Piece


async def take_waiting(places: Sequence[Place], request: Request, doubtful: Sequence[OfferRow] | None) -> Taken:
    """Take the most urgent messages that fit.

    Args:
        doubtful: For who asks, who also gets these again, and the rest of what was cut; None for who does not.
    """
    room_for_blocks(request.limit_characters)
    found: list[_Candidate] = []
    for place in places:
        if doubtful is not None:
            found += await _left_over(place, doubtful)
        waiting = await place.face.session.offers.waiting(place.wanted, request.messages)
        known = {one.message.number for one in found if one.place is place}
        found += [_Candidate(place, one, 0) for one in waiting if one.number not in known]
    found.sort(key=lambda one: (_RANKS[one.message.priority], one.message.accepted_at))
    return await _offer(found[: request.messages], request)


async def take_one(places: Sequence[Place], message_id: str, request: Request, doubtful: Sequence[OfferRow]) -> Taken:
    """Take one message by its id: what of it was not shown, or all of it again."""
    for place in places:
        try:
            found_id = await place.face.peer.find_message(message_id)
        except AddressError:
            continue
        for message in await place.face.session.offers.find(found_id):
            if message.session is None or await _is_own(place, message.session):
                return await _take_found(place, message, request, doubtful)
    raise AddressError("unknown_message", message_id[:32])


async def _take_found(place: Place, message: Received, request: Request, doubtful: Sequence[OfferRow]) -> Taken:
    face, wanted = place
    rows = await face.session.offers.of_message(message.number, wanted.agent)
    candidate = _candidate(place, message, rows, doubtful)
    if candidate.begins < len(message.text) or not (message.text or rows):
        return await _offer([candidate], request)
    piece = fit(view_of(face.peer, message), request.reply, room_for_blocks(request.limit_characters))
    assert piece is not None
    shown = _show(_Drawn(_Candidate(place, message, 0), piece), 0)
    return Taken((shown,), _join(shown.text, closing([] if shown.is_whole else [shown.message_id], 0)))


async def _is_own(place: Place, session: SessionId) -> bool:
    """Whether a message to this key was addressed to this session, under its key of now or an earlier one."""
    face, wanted = place
    return session == face.session.id or await face.session.offers.is_former(session, wanted.agent, wanted.label)


async def _left_over(place: Place, doubtful: Sequence[OfferRow]) -> list[_Candidate]:
    """What this session was given in part, or without a sign that it was shown."""
    book, agent = place.face.session.offers, place.wanted.agent
    numbers = dict.fromkeys([*(row.message for row in doubtful), *await book.unfinished(agent)])
    return [
        _candidate(place, message, await book.of_message(message.number, agent), doubtful)
        for message in await book.load(numbers)
        if _RANKS[message.priority] <= place.wanted.rank
    ]


def _candidate(place: Place, message: Received, rows: Sequence[OfferRow], doubtful: Sequence[OfferRow]) -> _Candidate:
    """A message from where it was surely shown on; what is doubtful is offered again."""
    in_doubt = tuple(row.id for row in doubtful if row.message == message.number)
    return _Candidate(place, message, _shown_until([row for row in rows if row.id not in in_doubt]), in_doubt)


def _shown_until(rows: Sequence[OfferRow]) -> int:
    """How many characters from the beginning were offered without a gap."""
    reached = 0
    for row in sorted(rows, key=lambda one: one.begins):
        if row.begins > reached:
            break
        reached = max(reached, row.ends)
    return reached


async def _offer(candidates: Sequence[_Candidate], request: Request) -> Taken:
    """Draw what fits, record it, and return what was recorded: of the rest nothing is known to anybody."""
    drawn = _draw(candidates, request)
    recorded: list[tuple[_Drawn, int]] = []
    for place in dict.fromkeys(one.candidate.place for one in drawn):
        own = [one for one in drawn if one.candidate.place is place]
        recorded += await _record(place, own, request.adapter)
    recorded.sort(key=lambda one: drawn.index(one[0]))
    offers = tuple(_show(one, number) for one, number in recorded)
    if not offers:
        return Taken()
    left = closing([one.message_id for one in offers if not one.is_whole], len(candidates) - len(offers))
    return Taken(offers, _join(*(one.text for one in offers), left))


async def _record(place: Place, drawn: Sequence[_Drawn], adapter: str) -> list[tuple[_Drawn, int]]:
    (_, session), wanted = place
    offerer = Offerer(wanted.agent, session.id, wanted.label, adapter)
    replaced = [number for one in drawn for number in one.candidate.replaces]
    numbers = await session.offers.offer(offerer, [_draft(one) for one in drawn], replaced)
    recorded = [(one, number) for one, number in zip(drawn, numbers, strict=True) if number]
    session.shown(*(one.candidate.message for one, _ in recorded))
    return recorded


def _draw(candidates: Sequence[_Candidate], request: Request) -> list[_Drawn]:
    room, drawn = room_for_blocks(request.limit_characters), list[_Drawn]()
    for one in candidates:
        view = view_of(one.place.face.peer, one.message, is_doubtful=bool(one.replaces))
        piece = fit(view, request.reply, room, one.begins, cut=not drawn)
        if piece is None:
            break
        drawn.append(_Drawn(one, piece))
        room -= units(piece.text) + len(_BETWEEN)
    return drawn


def _join(*texts: str) -> str:
    return _BETWEEN.join(text for text in texts if text)


def _draft(one: _Drawn) -> OfferDraft:
    message = one.candidate.message
    return OfferDraft(message.number, one.piece.begins, one.piece.ends, len(message.text))


def _show(one: _Drawn, number: int) -> Offer:
    message, peer = one.candidate.message, one.candidate.place.face.peer
    is_whole = one.piece.ends >= len(message.text)
    return Offer(number, message.id, peer.alias, message.sender, message.priority, one.piece.text, is_whole)
