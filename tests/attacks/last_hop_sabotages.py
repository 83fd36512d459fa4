"""Deliberate breaks of ONE rule of the last hop. Nothing but `test_last_hop` may use them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from claudemesh.daemon import rendering
from claudemesh.daemon.agents import moments, session
from claudemesh.daemon.agents.moments import Showing
from claudemesh.peer.grant_book import GrantBook
from claudemesh.peer.grants import Allow
from claudemesh.peer.journal import offers
from claudemesh.peer.offering import OfferBook


@contextmanager
def offers_are_not_recorded() -> Iterator[None]:
    """Nobody remembers what was shown."""
    numbers = itertools.count(1)

    async def offer(self: Any, offerer: Any, drafts: Any, replaced: Any = ()) -> list[int]:
        return [next(numbers) for _ in drafts]

    with mock.patch.object(OfferBook, "offer", offer):
        yield


@contextmanager
def anybody_confirms() -> Iterator[None]:
    """Whose offer it is does not matter."""
    original = offers.confirm

    def confirm(connection: Any, mesh: Any, agent: Any, key: Any, numbers: Any, evidence: Any, now: Any) -> Any:
        marks = ",".join(str(int(number)) for number in numbers)
        found = connection.execute(f"SELECT agent FROM offers WHERE id IN ({marks})").fetchone()  # noqa: S608
        return original(connection, mesh, found[0] if found else agent, key, numbers, evidence, now)

    with mock.patch.object(offers, "confirm", confirm):
        yield


@contextmanager
def a_part_is_the_whole() -> Iterator[None]:
    """Whoever saw the beginning has read it."""
    with mock.patch.object(offers, "is_whole", return_value=True):
        yield


@contextmanager
def taken_is_handed() -> Iterator[None]:
    """What was taken has arrived."""
    original = offers.add

    def add(connection: Any, mesh: Any, offerer: Any, drafts: Any, now: Any) -> list[int]:
        numbers = original(connection, mesh, offerer, drafts, now)
        offers.mark_handed(connection, mesh, offerer.agent, numbers, now)
        return numbers

    with mock.patch.object(offers, "add", add):
        yield


@contextmanager
def everybody_interrupts() -> Iterator[None]:
    """A priority is what its sender says."""
    with (
        mock.patch.object(GrantBook, "judge", lambda _self, header: Allow(header["prio"])),
        mock.patch.object(GrantBook, "may_interrupt", return_value=True),
    ):
        yield


@contextmanager
def bodies_stand_at_the_margin() -> Iterator[None]:
    """A line of the body looks like one of ours."""
    with mock.patch.object(rendering, "BODY_PREFIX", ""):
        yield


@contextmanager
def acknowledgements_count() -> Iterator[None]:
    """An `ack` is a message like any other."""

    def shown_at(moment: Any, *, is_dnd: bool) -> Showing:
        return moments.shown_at(moment, is_dnd=is_dnd)._replace(acks=True)

    with mock.patch.object(session, "shown_at", shown_at):
        yield
