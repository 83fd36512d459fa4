"""Epochs and posts written by hand, by members that obey no rule."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from claudemesh.crypto import channel_envelope, identity, statements
from claudemesh.crypto.epoch_record import open_record
from claudemesh.crypto.epochs import NewEpoch, channel_key, make_epoch, open_slot
from claudemesh.crypto.frames import Opened, Sealed
from claudemesh.crypto.identity import SessionKeys
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError
from claudemesh.protocol import codec
from claudemesh.protocol.messages import Delivery, Post, PublishedEpoch
from claudemesh.protocol.roster import EVERYONE, GENERAL
from claudemesh.types import BoxId, ChannelId, PeerId, UnixMillis
from tests.attacks.wire_member import WireMember

NO_ROW: Final = 0
NO_TIME: Final = UnixMillis(0)
"""Whoever pushes a delivery fills in row number and time."""


@dataclass(frozen=True)
class WireEpoch:
    """An epoch as its author has it, and for whom."""

    made: NewEpoch
    slots: Mapping[PeerId, str]
    attestation: Statement

    @property
    def id(self) -> str:
        return self.made.record.id

    @property
    def secret(self) -> bytes:
        return self.made.secret

    def delivery(self, to: PeerId, slot: str | None = None) -> Delivery:
        """What its broker delivers to one member, with that member's slot or another one."""
        return epoch_delivery(self.made.statement, self.attestation, self.slots[to] if slot is None else slot)


@dataclass(frozen=True)
class WirePost:
    """A post on its way: the frame, and what its author knows about it."""

    frame: Post
    header: dict[str, Any]
    attestation: Statement

    def delivery(self) -> Delivery:
        """What its broker delivers."""
        return Delivery(q=NO_ROW, at=NO_TIME, e=msgspec.Raw(codec.encode_message(self.frame)))


def make(
    author: WireMember,
    boxes: Mapping[PeerId, str],
    *,
    scope: ChannelId = EVERYONE,
    session: SessionKeys | None = None,
    attestation: Statement | None = None,
    entropy: bytes | None = None,
    **changes: Any,
) -> WireEpoch:
    """An epoch on the author's head for these box keys, whoever they belong to.

    Args:
        entropy: The secret and the seed of the ephemeral key, 32 bytes each; None for fresh ones.
        changes: Replace fields of the record.
    """
    draft = {
        "v": 1,
        "mesh": author.mesh,
        "chan": scope,
        "by": author.id,
        "rs": author.roster.seq,
        "rh": author.roster.head,
        "ra": author.head_signature[0],
        "rg": author.head_signature[1],
        "at": author.clock(),
    }
    holders = sorted(boxes)
    keys = [BoxId(boxes[holder]) for holder in holders]
    made = make_epoch(draft | changes, session or author.session, keys, entropy or os.urandom(64))
    return WireEpoch(made, dict(zip(holders, made.slots, strict=True)), attestation or author.usual_attestation())


def post(
    author: WireMember,
    epoch: WireEpoch,
    text: str | bytes,
    *,
    channel: ChannelId = GENERAL,
    attestation: Statement | None = None,
    session: SessionKeys | None = None,
    **fields: Any,
) -> WirePost:
    """A post under an epoch; `fields` replace any of its header, None removes one."""
    named = {"k": "ch", "chan": channel, "ep": epoch.id} | fields
    header = author.header(PeerId(channel), "", **named)
    header = {name: value for name, value in header.items() if name not in ("to", "kid")}
    body = text.encode() if isinstance(text, str) else text
    key = channel_key(epoch.secret, channel)
    sealed = channel_envelope.seal(header, body, session or author.session, key, os.urandom(24))
    shown = attestation or author.usual_attestation()
    frame = Post(
        mesh=header["mesh"],
        sender=header["from"],
        chan=header["chan"],
        ep=header["ep"],
        id=header["id"],
        prio=header["prio"],
        rs=header["rs"],
        att=statements.statement_digest(shown, "att"),
        nonce=statements.to_base64url(sealed.nonce),
        ct=statements.to_base64url(sealed.ciphertext),
    )
    return WirePost(frame, header, shown)


def epoch_delivery(statement: Statement, attestation: Statement, slot: str) -> Delivery:
    """A record as its broker delivers it."""
    published = PublishedEpoch(statement, statements.statement_digest(attestation, "att"))
    return Delivery(q=NO_ROW, at=NO_TIME, ep=msgspec.Raw(msgspec.json.encode(published)), slot=slot)


def secret_for(statement: Statement, slot: str, box: str, box_secret: bytes) -> bytes | None:
    """What a slot gives to who has this box key; None when it does not open."""
    try:
        return open_slot(slot, open_record(statement), {BoxId(box): box_secret})
    except ClaudemeshError:
        return None


def read(frame: Post, attestation: Statement, secret: bytes) -> Opened:
    """Open a post with an epoch's secret."""
    sealed = Sealed(statements.from_base64url(frame.nonce), statements.from_base64url(frame.ct))
    return channel_envelope.open_sealed(
        sealed, identity.open_attestation(attestation), channel_key(secret, ChannelId(frame.chan))
    )


def opens(frame: Post, attestation: Statement, secret: bytes) -> bool:
    """Whether a secret opens a post."""
    try:
        read(frame, attestation, secret)
    except ClaudemeshError:
        return False
    return True
