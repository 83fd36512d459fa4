"""Deliberate breaks of ONE check in the real code. Nothing but `test_broken_builds` may use them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from claudemesh.crypto import frames, identity, primitives, statements
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Unopenable
from claudemesh.peer import batch, overdue, settling
from claudemesh.peer.batch import Notice
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.freshness import Freshness
from claudemesh.peer.joining import _Joining
from claudemesh.peer.journal import keys as journal_keys
from claudemesh.peer.journal import membership as journal_membership
from claudemesh.peer.receiving import Authentic, Inspector
from claudemesh.peer.settling import Acceptance
from claudemesh.protocol import audit_view, handshake, heads, message_rules, roster, roster_rules
from claudemesh.protocol.heads import Standing
from claudemesh.protocol.messages import Send
from claudemesh.protocol.replay import Accepted, ReplayWindow
from claudemesh.protocol.roster import Checked, Entry, Roster
from claudemesh.types import MeshId, PeerId

Sabotage = Callable[[], AbstractContextManager[None]]
"""Breaks something for as long as its context is entered."""


def _nothing(*_: Any, **__: Any) -> None:
    return None


@contextmanager
def _replaced(original: Callable[..., Any], replacement: Callable[..., Any]) -> Iterator[None]:
    """Replace a function in every module of ours that has imported it."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("claudemesh.") and vars(module).get(original.__name__) is original:
                stack.enter_context(mock.patch.object(module, original.__name__, replacement))
        yield


@contextmanager
def no_inner_signature() -> Iterator[None]:
    """Whoever can box can sign."""
    with mock.patch.object(frames, "verify", _nothing):
        yield


@contextmanager
def plaintext_is_read() -> Iterator[None]:
    """What does not open is taken as it is, as if it had never been encrypted."""
    original = primitives.box_open

    def box_open(ciphertext: bytes, nonce: bytes, public: str, secret: bytes) -> bytes:
        try:
            return original(ciphertext, nonce, public, secret)
        except Unopenable:
            return ciphertext

    with mock.patch.object(primitives, "box_open", box_open), no_inner_signature():
        yield


@contextmanager
def outer_fields_count() -> Iterator[None]:
    """What the envelope says outside is believed."""
    original = Inspector.inspect

    def inspect(self: Inspector, message: Send, *rest: Any, **more: Any) -> Any:
        verdict = original(self, message, *rest, **more)
        if isinstance(verdict, Authentic):
            verdict.header.update(id=message.id, prio=message.prio)
        return verdict

    with mock.patch.object(Inspector, "inspect", inspect):
        yield


@contextmanager
def revoked_members_are_heard() -> Iterator[None]:
    """Who was a member once is one."""
    with mock.patch.object(Roster, "is_active", lambda self, peer: peer in self.members):
        yield


@contextmanager
def attestations_without_end() -> Iterator[None]:
    """A session lives as long as it says."""
    with mock.patch.object(identity, "ATTESTATION_MAX_MS", 1 << 50):
        yield


@contextmanager
def no_card_floor() -> Iterator[None]:
    """That a card was voided by a `rekey` is forgotten."""

    def box_of(self: CardDirectory, peer: PeerId) -> str:
        card = self._cards.get(peer)
        return self._membership.roster.members[peer].box if card is None else card.box

    with (
        mock.patch.object(CardDirectory, "_is_newer", return_value=True),
        mock.patch.object(CardDirectory, "box_of", box_of),
    ):
        yield


@contextmanager
def no_recipient_binding() -> Iterator[None]:
    """The signed header is not compared with the envelope and this peer."""
    with mock.patch.object(Inspector, "_check_binding", _nothing):
        yield


@contextmanager
def no_origin_binding() -> Iterator[None]:
    """The signed header is not compared with the attestation: its mesh, its peer, its session."""
    with mock.patch.object(message_rules, "check_origin", _nothing):
        yield


@contextmanager
def no_capability_check() -> Iterator[None]:
    """What a session may do is not looked at."""
    original = message_rules.check_attestation

    def check(attestation: Any, replica: Roster, capability: str, dead: Any = ()) -> None:
        original(attestation, replica, attestation.capabilities[0], dead)

    with mock.patch.object(message_rules, "check_attestation", check):
        yield


@contextmanager
def no_replay_window() -> Iterator[None]:
    """Every counter is new."""

    def accept(self: ReplayWindow, counter: int) -> Accepted:
        return Accepted(ReplayWindow(max(self.highest, counter), self.bitmap), 0)

    with mock.patch.object(ReplayWindow, "accept", accept):
        yield


@contextmanager
def losses_are_forgotten() -> Iterator[None]:
    """A journal that begins anew is taken for a complete one."""
    with mock.patch.object(journal_keys, "note_loss", _nothing):
        yield


@contextmanager
def no_time_check() -> Iterator[None]:
    """A message is good at any time."""
    with mock.patch.object(message_rules, "check_times", _nothing):
        yield


@contextmanager
def no_gossip() -> Iterator[None]:
    """The head that a message names is not looked at."""
    with mock.patch.object(Inspector, "_check_gossip", _nothing):
        yield


@contextmanager
def unproven_claims_count() -> Iterator[None]:
    """A member's word about a head needs no signature of the broker."""
    with mock.patch.object(heads, "is_proven", return_value=True):
        yield


@contextmanager
def no_head_comparison() -> Iterator[None]:
    """Whatever head the broker signs is taken for the replica's own."""
    with mock.patch.object(heads, "classify_head", return_value=Standing.CURRENT):
        yield


@contextmanager
def any_key_signs_heads() -> Iterator[None]:
    """The signer of a head need not be the roster's broker."""
    original = heads.open_head

    def open_head(statement: Statement, replica: Roster) -> Any:
        with mock.patch.object(heads, "head_signers", return_value={statement.k}):
            return original(statement, replica)

    with mock.patch.object(heads, "open_head", open_head):
        yield


@contextmanager
def no_origin_check() -> Iterator[None]:
    """A challenge for another address is answered."""
    original = handshake.open_challenge

    def open_challenge(statement: Statement, broker: Any, dialled: str, *more: Any) -> Any:
        return original(statement, broker, statements.decode(statement.b.encode())["origin"], *more)

    with mock.patch.object(handshake, "open_challenge", open_challenge):
        yield


@contextmanager
def no_broker_key_check() -> Iterator[None]:
    """Any broker is the right one."""
    original = handshake.open_challenge

    def open_challenge(statement: Statement, broker: Any, dialled: str, *more: Any) -> Any:
        return original(statement, None, dialled, *more)

    with mock.patch.object(handshake, "open_challenge", open_challenge):
        yield


@contextmanager
def no_mesh_id_in_the_link_and_no_proof_of_possession() -> Iterator[None]:
    """Two checks, each of which stops this attack alone, as in the formal model `mesh_nomid_nopop`."""

    async def learn_mesh(self: Any) -> MeshId:
        from claudemesh.protocol.messages import Log, Sync

        log = await self._line.request(Sync(rid=0, seq=0), Log)
        return MeshId(roster.entry_digest(log.entries[0]))

    with mock.patch.object(_Joining, "_learn_mesh", learn_mesh), no_roster_signatures():
        yield


@contextmanager
def no_roster_signatures() -> Iterator[None]:
    """The rules of the roster hold, but nobody has to sign."""

    def check(self: Roster, entry: Entry, now: Any) -> Checked:
        checked = self._place(entry)
        roster_rules.required_signers(self, checked.body)
        return checked

    with mock.patch.object(Roster, "check", check):
        yield


@contextmanager
def no_rule(op: str) -> Iterator[None]:
    """One operation is allowed to everybody who signs it."""

    def allow(state: Any, body: Any) -> tuple[str, ...]:
        keys = [body["by"], *([body["m"]["sign"], body["m"]["user"]] if "m" in body else [])]
        return tuple(dict.fromkeys([*keys, *([body["inv"]] if op == "invite" else [])]))

    with mock.patch.dict(roster_rules._RULES, {op: allow}):
        yield


@contextmanager
def expired_links_stay() -> Iterator[None]:
    """Nobody closes an invite whose time is over."""

    async def close_overdue(*_: Any) -> None:
        return None

    with _replaced(overdue.close_overdue, close_overdue):
        yield


@contextmanager
def old_heads_are_good() -> Iterator[None]:
    """However long ago a head was signed."""
    with mock.patch.object(Freshness, "look", _nothing):
        yield


@contextmanager
def no_clock() -> Iterator[None]:
    """An entry may be dated as far ahead as its author likes."""
    with mock.patch.object(roster, "FUTURE_ENTRY_MS", 1 << 50):
        yield


@contextmanager
def unsigned_acceptance() -> Iterator[None]:
    """`accepted` is believed whoever signed it."""

    def open_acceptance(statement: Statement, mesh: Any, broker: Any) -> Acceptance:
        return Acceptance(statement, statements.decode(statement.b.encode()))

    with _replaced(settling.open_acceptance, open_acceptance):
        yield


@contextmanager
def unsigned_notices() -> Iterator[None]:
    """A notice about a message is believed whoever signed it."""
    original = batch.read_notice

    def read_notice(statement: Statement, mesh: Any, broker: Any) -> Notice:
        with mock.patch.object(statements, "verify_bytes", _nothing):
            return original(statement, mesh, statement.k)  # type: ignore[arg-type]

    with _replaced(original, read_notice):
        yield


@contextmanager
def no_card_number() -> Iterator[None]:
    """The card that came last wins."""
    with mock.patch.object(CardDirectory, "_is_newer", return_value=True):
        yield


@contextmanager
def no_card_signature() -> Iterator[None]:
    """A card is believed whoever signed it."""
    original = identity.open_card

    def open_card(statement: Statement) -> Any:
        member = statements.decode(statement.b.encode())["member"]
        with mock.patch.object(statements, "verify_bytes", _nothing):
            return original(Statement(statement.b, member, statement.s))

    with mock.patch.object(identity, "open_card", open_card):
        yield


@contextmanager
def no_attestation_signature() -> Iterator[None]:
    """A session speaks for whomever it names."""
    original = identity.open_attestation

    def open_attestation(statement: Statement) -> Any:
        with mock.patch.object(statements, "verify_bytes", _nothing):
            return original(statement)

    with mock.patch.object(identity, "open_attestation", open_attestation):
        yield


@contextmanager
def dead_sessions_live() -> Iterator[None]:
    """That a peer has ended a session is forgotten."""
    with mock.patch.object(CardDirectory, "dead_sessions", return_value=()):
        yield


@contextmanager
def no_owed_rows() -> Iterator[None]:
    """The audit log need not reach as far as what was acknowledged."""
    with mock.patch.object(journal_membership, "last_audit_receipt", return_value=-1):
        yield


@contextmanager
def no_audit_receipts() -> Iterator[None]:
    """Acknowledged rows are not compared with the audit log."""
    with mock.patch.object(journal_membership, "load_audit_receipts", return_value={}):
        yield


@contextmanager
def no_audit_fields() -> Iterator[None]:
    """An audit row may say anything."""

    def read_row(raw: bytes, mesh: Any, n: int, previous: Any) -> Any:
        return statements.decode(raw)

    with mock.patch.object(audit_view, "read_row", read_row):
        yield
