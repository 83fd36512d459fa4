"""Deliberate breaks of ONE check that channels rest on. Nothing but `test_broken_builds` may use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from claudemesh.crypto import epochs as epoch_crypto
from claudemesh.peer import channel_names, repairing
from claudemesh.peer.directory import Directory
from claudemesh.peer.pump import Pump
from claudemesh.protocol import epoch_handover, epochs, posts
from claudemesh.protocol.roster import Roster


def _nothing(*_: Any, **__: Any) -> None:
    return None


@contextmanager
def in_flight_is_no_sending() -> Iterator[None]:
    """A freeze stops what is begun after it, and nothing else."""

    async def transmit(self: Pump[Any], line: Any, frame: bytes) -> None:
        await line.post_frame(frame)

    with mock.patch.object(Pump, "_transmit", transmit):
        yield


@contextmanager
def no_epoch_author() -> Iterator[None]:
    """Whoever seals a secret to a member makes an epoch."""
    with mock.patch.object(epochs, "check_author", _nothing), mock.patch.object(epochs, "check_place", _nothing):
        yield


@contextmanager
def no_author_in_the_channel() -> Iterator[None]:
    """The author of an epoch need not be in its scope at the head that it names."""
    with mock.patch.object(epochs, "check_place", _nothing):
        yield


@contextmanager
def no_commitment() -> Iterator[None]:
    """A slot may hold any secret."""
    with mock.patch.object(epoch_crypto, "check_commitment", _nothing):
        yield


@contextmanager
def no_commitment_in_history() -> Iterator[None]:
    """A history may hand over any secret for any record."""
    with mock.patch.object(epoch_handover, "check_commitment", _nothing):
        yield


@contextmanager
def no_send_rule() -> Iterator[None]:
    """An epoch is used however many members have left since."""
    with mock.patch.object(Roster, "channel_version", return_value=0):
        yield


@contextmanager
def any_epoch_is_chosen() -> Iterator[None]:
    """Of several usable epochs, the one that came first is used."""
    whole = epochs.EpochBook.usable

    def usable(self: Any, roster: Any, scope: Any, now: Any, dead: Any = ()) -> Any:
        chosen = whole(self, roster, scope, now, dead)
        if chosen is None:
            return None
        rivals = [one for one in self.of_scope(scope) if one.record.roster_seq == chosen.record.roster_seq]
        return min(rivals, key=lambda one: list(self._by_id).index(one.id))

    with mock.patch.object(epochs.EpochBook, "usable", usable):
        yield


@contextmanager
def no_capability_in_posts() -> Iterator[None]:
    """What a session may do is not looked at in a channel."""
    whole = posts.check_attestation

    def check(attestation: Any, roster: Any, capability: str, dead: Any = ()) -> None:
        whole(attestation, roster, attestation.capabilities[0], dead)

    with mock.patch.object(posts, "check_attestation", check):
        yield


@contextmanager
def no_gossip_in_channels() -> Iterator[None]:
    """The head that an epoch or post names is not looked at."""
    with mock.patch.object(epochs, "settle_claim", _nothing), mock.patch.object(posts, "settle_claim", _nothing):
        yield


@contextmanager
def anybody_is_entitled() -> Iterator[None]:
    """Who asks for a secret gets it."""

    def offer(epoch: Any, asker: Any, roster: Any) -> Any:
        return {"b": epoch.record.body, "ep": epoch.id, "k": epoch.secret.hex()}

    with mock.patch.object(repairing, "offer_repair", offer):
        yield


@contextmanager
def secrets_are_given_again() -> Iterator[None]:
    """What was handed to a peer before is forgotten."""
    with mock.patch.object(repairing.rows, "note_given", return_value=True):
        yield


@contextmanager
def names_are_compared_by_letter() -> Iterator[None]:
    """Names that look alike are two names."""
    with mock.patch.object(channel_names, "skeleton", lambda name: name):
        yield


@contextmanager
def anybody_names_a_channel() -> Iterator[None]:
    """The last word about a name counts, whoever said it."""
    with mock.patch.object(Directory, "_is_believed", return_value=True):
        yield
