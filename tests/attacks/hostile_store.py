"""What a hostile broker holds: histories to multiply, mailboxes to shuffle, an audit log to rewrite."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import heads
from claudemesh.protocol.messages import Send
from claudemesh.protocol.roster import Entry, InviteState, Roster, entry_digest
from claudemesh.types import ZERO_DIGEST, Digest, InviteId, MeshId, PeerId, UnixMillis


class View:
    """One history of one mesh, as a group of peers is shown it.

    An honest broker has one view of each mesh. A fork is two of them, a rollback is a shorter one, and a
    forgery is one whose last entries were stored without a check.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: list[Entry] = []
        self.roster = Roster()
        for entry in entries:
            self.append(entry)

    @property
    def mesh(self) -> MeshId:
        return MeshId(entry_digest(self.entries[0]))

    @property
    def seq(self) -> int:
        return len(self.entries) - 1

    @property
    def head(self) -> Digest:
        return entry_digest(self.entries[-1]) if self.entries else ZERO_DIGEST

    def append(self, entry: Entry) -> None:
        """Store an entry as an honest broker does: only when it follows the rules."""
        self.roster.apply(entry)
        self.entries.append(entry)

    def force(self, *entries: Entry) -> None:
        """Store entries without looking at them."""
        self.entries.extend(entries)

    def copy(self, length: int | None = None) -> Self:
        """A second history that begins alike: all of it, or its first `length` entries."""
        return type(self)(self.entries[:length])

    def signed_head(self, key: SigningKey, now: UnixMillis) -> Statement:
        """The broker's word that this view is all there is."""
        return heads.sign_head(self.mesh, self.seq, self.head, now, key)

    def invite_state(self, invite: InviteId, now: UnixMillis) -> InviteState:
        return self.roster.invite_state(invite, now)


@dataclass(slots=True)
class Row:
    """One mailbox row: an envelope as its sender wrote it, or a notice of the broker."""

    q: int
    at: UnixMillis
    envelope: bytes | None = None
    notice: Statement | None = None

    @property
    def send(self) -> Send:
        """The envelope's outer fields."""
        assert self.envelope is not None
        return msgspec.json.decode(self.envelope, type=Send)

    def altered(self, **outer: Any) -> bytes:
        """The envelope with other outer fields; what is encrypted stays as it was."""
        assert self.envelope is not None
        return msgspec.json.encode(msgspec.json.decode(self.envelope) | outer)


class Mailboxes:
    """Every undelivered row, by recipient."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._rows: dict[PeerId, list[Row]] = {}

    def add(self, to: PeerId, at: UnixMillis, envelope: bytes | None = None, notice: Statement | None = None) -> Row:
        row = Row(next(self._numbers), at, envelope, notice)
        self._rows.setdefault(to, []).append(row)
        return row

    def of(self, peer: PeerId) -> list[Row]:
        return list(self._rows.get(peer, ()))

    def take(self, peer: PeerId) -> list[Row]:
        """Remove and return everything that waits for `peer`."""
        return self._rows.pop(peer, [])

    def delete(self, peer: PeerId, numbers: Sequence[int]) -> None:
        self._rows[peer] = [row for row in self._rows.get(peer, ()) if row.q not in numbers]

    def __iter__(self) -> Iterator[Row]:
        return itertools.chain.from_iterable(self._rows.values())


@dataclass
class AuditChain:
    """The hash-chained audit log of one mesh, with nothing to stop it from being rewritten."""

    mesh: MeshId
    rows: list[str] = field(default_factory=list)
    noted: dict[str, Any] = field(default_factory=dict)
    """Fields that replace or extend those of every further row."""

    @property
    def head(self) -> Digest:
        return statements.digest("audit", self.rows[-1].encode()) if self.rows else ZERO_DIGEST

    def add(self, event: str, actor: str, target: str, now: UnixMillis, **metadata: Any) -> tuple[int, Digest]:
        """Append one row; returns its number and hash, which make the sender's receipt."""
        row = {
            "actor_peer_id": actor[:16],
            "target_peer_id": target[:16],
            "created_at": now,
            "event_type": event,
            "id": len(self.rows),
            "mesh_id": self.mesh,
            "metadata": metadata,
            "prev_hash": self.head,
        }
        self.rows.append(statements.encode(row | self.noted).decode())
        return len(self.rows) - 1, self.head

    def checkpoint(self, key: SigningKey, now: UnixMillis) -> Statement:
        body = {"v": 1, "at": now, "mesh": self.mesh, "n": len(self.rows), "head": self.head}
        return statements.sign_statement(body, "audit-cp", key)


@dataclass
class HeldMesh:
    """All that the broker keeps about one mesh."""

    main: View
    views: dict[PeerId, View] = field(default_factory=dict)
    """Peers that are shown something else than `main`."""
    cards: dict[PeerId, Statement] = field(default_factory=dict)
    cards_shown_to: dict[PeerId, dict[PeerId, Statement]] = field(default_factory=dict)
    """Per peer, cards that replace the true ones."""
    attestations: dict[str, Statement] = field(default_factory=dict)
    mail: Mailboxes = field(default_factory=Mailboxes)
    audit: AuditChain = field(init=False)

    def __post_init__(self) -> None:
        self.audit = AuditChain(self.main.mesh)

    def view_of(self, peer: PeerId | None) -> View:
        return self.main if peer is None else self.views.get(peer, self.main)

    def card_for(self, reader: PeerId, member: PeerId) -> Statement | None:
        return self.cards_shown_to.get(reader, {}).get(member) or self.cards.get(member)
