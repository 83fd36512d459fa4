"""The public half of an epoch: a record signed by the session that made it (docs/spec/channels.md §2).

A record commits to a secret that it does not contain, so a broker can check and carry it. Whoever
holds the roster knows for whom the secret was sealed: the members of the scope at `roster_seq`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Body, FieldType, Statement
from claudemesh.types import BoxId, ChannelId, Digest, MeshId, PeerId, SessionId, UnixMillis

DRAFT_FIELDS: Final[dict[str, FieldType]] = {
    "v": (1,),
    "mesh": "hex32",
    "chan": "hex16",
    "by": "hex32",
    "rs": "int",
    "rh": "hex32",
    "ra": "int",
    "rg": "sig",
    "at": "int",
}
"""What its author decides; `e` and `kc` follow from the secret."""
RECORD_FIELDS: Final[dict[str, FieldType]] = DRAFT_FIELDS | {"e": "hex32", "kc": "hex32"}


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """An epoch as its author announced it. Only `open_record` vouches for `session`; the rest is a hash away."""

    id: Digest
    mesh: MeshId
    scope: ChannelId
    author: PeerId
    roster_seq: int
    """The members of the scope when the roster ended here hold the secret, nobody else."""
    roster_head: Digest
    box: BoxId
    """Ephemeral X25519 key that the slots are sealed from."""
    commitment: str
    made_at: UnixMillis
    session: SessionId | None
    """Who signed it; None for a record that came without its signature, in a history or repair."""
    body: Body = field(repr=False, compare=False)


def open_record(statement: Statement) -> EpochRecord:
    """Verify a record's form and signature; whether its author was entitled is the roster's to say.

    Raises:
        Malformed: It is not canonical or has another field set.
        BadSignature: The signature does not match.
    """
    return _record(statements.open_statement(statement, "epoch"), SessionId(statement.k))


def read_record(body: Mapping[str, Any]) -> EpochRecord:
    """Read a record that came without its signature: its id proves that it is the one that a message names."""
    return _record(dict(body), None)


def record_id(body: Mapping[str, Any]) -> Digest:
    """The hash that names an epoch in messages, over its body only."""
    return statements.digest("epoch", statements.encode(body))


def _record(body: Body, session: SessionId | None) -> EpochRecord:
    statements.check_fields(body, RECORD_FIELDS)
    return EpochRecord(
        id=record_id(body),
        mesh=body["mesh"],
        scope=body["chan"],
        author=body["by"],
        roster_seq=body["rs"],
        roster_head=body["rh"],
        box=body["e"],
        commitment=body["kc"],
        made_at=body["at"],
        session=session,
        body=body,
    )
