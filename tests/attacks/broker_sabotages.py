"""Deliberate breaks of ONE check of the broker. Nothing but `test_broken_builds` may use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from claudemesh.broker import holdings, policy
from claudemesh.broker.members import Members
from claudemesh.crypto import statements
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import handshake


def _nothing(*_: Any, **__: Any) -> None:
    return None


@contextmanager
def no_hello_binding() -> Iterator[None]:
    """A hello need not answer this challenge."""
    with mock.patch.object(handshake, "_check_binding", _nothing):
        yield


@contextmanager
def no_hello_signature() -> Iterator[None]:
    """The broker believes that a session speaks when its attestation is shown."""
    original = handshake.open_hello

    def open_hello(statement: Statement, attestation: Any, challenge: Any) -> Any:
        body = statements.decode(statement.b.encode()) | {"sess": attestation.session}
        with mock.patch.object(statements, "verify_bytes", _nothing):
            forged = Statement(statements.encode(body).decode(), attestation.session, statement.s)
            return original(forged, attestation, challenge)

    with mock.patch.object(handshake, "open_hello", open_hello):
        yield


@contextmanager
def rosters_together_have_no_end() -> Iterator[None]:
    """The broker looks at the length of each, and at nothing else."""
    with mock.patch.object(holdings.Holdings, "require_room", return_value=None):
        yield


@contextmanager
def a_sender_may_have_a_whole_mailbox() -> Iterator[None]:
    """The broker does not count whose the envelopes of a mailbox are."""
    with mock.patch.object(policy.Senders, "take", return_value=True):
        yield


@contextmanager
def what_a_removed_member_sent_stays() -> Iterator[None]:
    """The broker drops the mailbox of a member that was removed, and no more."""
    with mock.patch.object(Members, "_drop_sent", mock.AsyncMock()):
        yield


@contextmanager
def revoked_members_enter() -> Iterator[None]:
    """The broker does not look whether a member is still active."""
    with mock.patch.object(Members, "_check_member", _nothing):
        yield
