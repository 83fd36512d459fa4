"""Handing an epoch's secret on: history for a joiner, repair of a slot (docs/spec/channels.md §6, §7).

Both are explicit acts of a member that holds the secret. What is handed on is bound to the id that
messages name, so a wrong secret or record is refused; and it is only ever read with.
"""

from collections.abc import Mapping
from typing import Any, Final

from claudemesh.crypto import statements
from claudemesh.crypto.epoch_record import EpochRecord, read_record
from claudemesh.crypto.epochs import check_commitment, open_history, seal_history
from claudemesh.crypto.statements import Body, FieldType
from claudemesh.errors import EpochRefused, Unopenable
from claudemesh.protocol.epochs import EpochBook, HeldEpoch
from claudemesh.protocol.roster import Roster
from claudemesh.types import MeshId, PeerId, UnixMillis

_HISTORY_FIELDS: Final[dict[str, FieldType]] = {"old": dict, "new": "hex32", "n": str, "ct": str}
_REPAIR_FIELDS: Final[dict[str, FieldType]] = {"b": dict, "ep": "hex32", "k": "hex32"}


def share_history(old: HeldEpoch, new: HeldEpoch, nonce: bytes) -> Body:
    """The body of a `cm/history`: opens `old` to everybody who holds `new`.

    Args:
        nonce: 24 fresh random bytes.

    Raises:
        EpochRefused: `epoch`; the two are not of one scope, nothing was encrypted.
    """
    _require_same_scope(old.record, new.record)
    sealed = seal_history(old.secret, new.secret, nonce)
    return {
        "old": old.record.body,
        "new": new.id,
        "n": statements.to_base64url(nonce),
        "ct": statements.to_base64url(sealed),
    }


def take_history(body: Mapping[str, Any], book: EpochBook, now: UnixMillis) -> HeldEpoch:
    """Verify a `cm/history` that a member shared.

    Raises:
        Malformed: It has another form.
        Unopenable: `no_epoch_key` the newer epoch is not held; `secretbox_open`.
        EpochRefused: `epoch` of another scope; `epoch_commit` the secret is not that record's.
    """
    statements.check_fields(body, _HISTORY_FIELDS)
    new = book.find(body["new"])
    if new is None:
        raise Unopenable("no_epoch_key")
    record = read_record(body["old"])
    _require_same_scope(record, new.record)
    ciphertext, nonce = statements.from_base64url(body["ct"]), statements.from_base64url(body["n"])
    secret = open_history(ciphertext, nonce, new.secret)
    check_commitment(secret, record)
    return HeldEpoch(record, secret, now)


def offer_repair(epoch: HeldEpoch, asker: PeerId, roster: Roster) -> Body:
    """The body of a `cm/slot`: the secret, for a peer that was entitled to a slot and got none that opens.

    Raises:
        EpochRefused: `not_entitled`; the asker is not active, or was not in the scope when the epoch was made.
    """
    record = epoch.record
    if not roster.is_active(asker) or not roster.was_in_channel_at(asker, record.scope, record.roster_seq):
        raise EpochRefused("not_entitled")
    return {"b": record.body, "ep": epoch.id, "k": epoch.secret.hex()}


def take_repair(
    body: Mapping[str, Any], mesh: MeshId, now: UnixMillis, announced: EpochRecord | None = None
) -> HeldEpoch:
    """Verify a `cm/slot` that a member sent.

    Args:
        announced: The signed record of that id, when it was received and only its slot was bad; with it the
            epoch may be sent under, as if the slot had been good.

    Raises:
        Malformed: It has another form.
        EpochRefused: `epoch` of another mesh or id; `epoch_commit` the secret is not that record's.
    """
    statements.check_fields(body, _REPAIR_FIELDS)
    record = read_record(body["b"])
    if record.mesh != mesh or record.id != body["ep"]:
        raise EpochRefused("epoch", "of another mesh or id")
    secret = bytes.fromhex(body["k"])
    check_commitment(secret, record)
    same = announced is not None and announced.id == record.id
    return HeldEpoch(announced if announced is not None and same else record, secret, now)


def _require_same_scope(old: EpochRecord, new: EpochRecord) -> None:
    if (old.mesh, old.scope) != (new.mesh, new.scope):
        raise EpochRefused("epoch", "of another scope")
