"""Deliberate breaks of ONE rule about agents. Nothing but `test_broken_builds` may use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from claudemesh.peer.journal import held
from claudemesh.peer.quiet import Quiet
from claudemesh.protocol import chains, loops


def _none(*_: Any, **__: Any) -> None:
    return None


@contextmanager
def nothing_is_judged() -> Iterator[None]:
    """Whatever an agent writes is taken."""
    with mock.patch.object(loops, "judge", _none):
        yield


@contextmanager
def chains_are_not_read() -> Iterator[None]:
    """Every message is a person's."""
    with mock.patch.object(chains, "read", _none):
        yield


@contextmanager
def nothing_is_remembered() -> Iterator[None]:
    """What was taken is forgotten at once."""
    with mock.patch.object(loops, "take", _none):
        yield


@contextmanager
def decisions_are_forgotten() -> Iterator[None]:
    """A copy of a held message is judged as if it were the first one."""
    with mock.patch.object(held, "find", _none):
        yield


@contextmanager
def there_is_always_room() -> Iterator[None]:
    """However many wait, one more is kept."""
    with mock.patch.object(held, "MAX_HELD_PER_SENDER", 10**6):
        yield


@contextmanager
def a_pause_withholds_nothing() -> Iterator[None]:
    """A paused mesh goes on."""
    with mock.patch.object(Quiet, "withheld", return_value=""):
        yield
