"""Epoch secrets: made, committed to, sealed to members, handed on (docs/spec/channels.md §2, §3, §6).

key(channel)  = KDF(K, "chan", channel id[16])
commitment    = KDF(K, "commit", canonical JSON of {by, chan, e, mesh, rh, rs})
slot(member)  = crypto_box_easy(K, N, member's box key, e's secret),  N = H("slot", e ‖ box key)[0:24]
slot text     = first 8 hex digits of the box key ‖ base64url(slot), 72 characters
history       = crypto_secretbox_easy(K_old, nonce, KDF(K_new, "hist"))
"""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.epoch_record import DRAFT_FIELDS, EpochRecord, open_record
from claudemesh.crypto.identity import SessionKeys
from claudemesh.crypto.primitives import KEY_BYTES, NONCE_BYTES, SEED_BYTES, BoxKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import EpochRefused, Unopenable
from claudemesh.types import BoxId, ChannelId

SLOT_KEY_DIGITS: Final = 8
SLOT_BYTES: Final = KEY_BYTES + 16
SLOT_CHARACTERS: Final = SLOT_KEY_DIGITS + SLOT_BYTES * 4 // 3
_COMMITTED_FIELDS: Final = ("by", "chan", "e", "mesh", "rh", "rs")


class NewEpoch(NamedTuple):
    """An epoch as its author has it: what to publish, and the secret to keep."""

    statement: Statement
    record: EpochRecord
    secret: bytes
    slots: tuple[str, ...]
    """One for each box key, in the order in which the keys were given."""

    def __repr__(self) -> str:
        return f"NewEpoch({self.record.id[:8]}…)"


Each = Callable[[Callable[[BoxId], str], Sequence[BoxId]], Iterable[str]]
"""Applies a function to every box key and keeps their order: `map`, or something that uses every core."""


def make_epoch(
    draft: Mapping[str, Any], session: SessionKeys, boxes: Sequence[BoxId], entropy: bytes, *, each: Each = map
) -> NewEpoch:
    """Make an epoch secret, commit to it, and seal it to each box key.

    A member whose box key is useless gets a slot that opens with nothing: it locks out itself, not the others.

    Args:
        draft: The fields of `DRAFT_FIELDS`, all of them.
        boxes: Current box keys of the scope's members at `rs`, in ascending order of the members' ids.
        entropy: 64 fresh random bytes: the secret, and the seed of the ephemeral key.

    Raises:
        Malformed: The draft breaks its layout; nothing was made.
    """
    statements.check_fields(draft, DRAFT_FIELDS)
    secret, ephemeral = entropy[:KEY_BYTES], primitives.box_key(entropy[KEY_BYTES : KEY_BYTES + SEED_BYTES])
    body = {**draft, "e": ephemeral.public}
    body["kc"] = commitment(secret, body)
    statement = statements.sign_statement(body, "epoch", session.sign)
    slots = tuple(each(lambda box: _seal_slot(secret, box, ephemeral), boxes))
    return NewEpoch(statement, open_record(statement), secret, slots)


def open_slot(slot: str, record: EpochRecord, boxes: Mapping[BoxId, bytes]) -> bytes:
    """Open our slot of a record, with the one key that it names, and check what is in it.

    Args:
        slot: Text from outside, of any length.
        boxes: Our box keys with their secrets.

    Returns:
        The epoch secret (32 bytes); everybody whose slot opened under this record has the same.

    Raises:
        EpochRefused: `no_slot` it is missing or has another form; `epoch_commit` it holds another secret.
        Unopenable: `stale_key` it is for a key that we do not hold; `box_open`.
    """
    box, ciphertext = _read_slot(slot, boxes)
    secret = primitives.box_open_once(ciphertext, _slot_nonce(record.box, box), record.box, boxes[box])
    check_commitment(secret, record)
    return secret


def commitment(secret: bytes, body: Mapping[str, Any]) -> str:
    """What a record says of its secret (64 hex digits): nobody finds a second secret for it."""
    committed = {name: body[name] for name in _COMMITTED_FIELDS}
    return statements.derive(secret, "commit", statements.encode(committed)).hex()


def check_commitment(secret: bytes, record: EpochRecord) -> None:
    """Require that `secret` is the one that `record` commits to, or raise `EpochRefused` `epoch_commit`."""
    if len(secret) != KEY_BYTES or not hmac.compare_digest(commitment(secret, record.body), record.commitment):
        raise EpochRefused("epoch_commit")


def channel_key(secret: bytes, channel: ChannelId) -> bytes:
    """The key (32 bytes) of one channel in an epoch: channels that share an epoch do not share a key."""
    return statements.derive(secret, "chan", bytes.fromhex(channel))


def seal_history(old: bytes, new: bytes, nonce: bytes) -> bytes:
    """Encrypt an older epoch's secret under a newer one, for whoever holds that (48 bytes)."""
    return primitives.secretbox(old, nonce, statements.derive(new, "hist"))


def open_history(ciphertext: bytes, nonce: bytes, new: bytes) -> bytes:
    """Open an older epoch's secret, or raise `Unopenable` `secretbox_open`; its record is still to be compared."""
    return primitives.secretbox_open(ciphertext, nonce, statements.derive(new, "hist"))


def _seal_slot(secret: bytes, box: BoxId, ephemeral: BoxKey) -> str:
    try:
        sealed = primitives.box_once(secret, _slot_nonce(ephemeral.public, box), box, ephemeral.secret)
    except Unopenable:
        # A member chooses its own box key; a low-order one must not stop the rotation for all.
        sealed = bytes(SLOT_BYTES)
    return box[:SLOT_KEY_DIGITS] + statements.to_base64url(sealed)


def _read_slot(slot: str, boxes: Mapping[BoxId, bytes]) -> tuple[BoxId, bytes]:
    if len(slot) != SLOT_CHARACTERS:
        raise EpochRefused("no_slot")
    for box in boxes:
        if box[:SLOT_KEY_DIGITS] == slot[:SLOT_KEY_DIGITS]:
            return box, statements.from_base64url(slot[SLOT_KEY_DIGITS:])
    raise Unopenable("stale_key")


def _slot_nonce(ephemeral: str, box: BoxId) -> bytes:
    """Fixed, not random: the ephemeral key is fresh for each record, so (key pair, nonce) never repeats."""
    return bytes.fromhex(statements.digest("slot", bytes.fromhex(ephemeral) + bytes.fromhex(box)))[:NONCE_BYTES]
