"""The audit log: canonical rows, the chain, and what a peer finds when the broker changes it."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claudemesh.broker.audit import Chain, checkpoint, details
from claudemesh.crypto import statements
from claudemesh.crypto.primitives import signing_key
from claudemesh.crypto.statements import Statement
from claudemesh.database import Database, load_migrations
from claudemesh.errors import AuditConflict, BadSignature, Malformed
from claudemesh.protocol.audit_rows import (
    EVENT_TYPES,
    METADATA_FIELDS,
    REASONS,
    ROW_FIELDS,
    AuditRow,
    Metadata,
    as_body,
    encode_json,
    row_hash,
    size_class,
)
from claudemesh.protocol.audit_view import AuditView, verify
from claudemesh.types import BrokerId, Digest, MeshId, PeerId, UnixMillis

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "audit.md").read_text(encoding="utf-8")
MESH = MeshId("ab" * 32)
ALICE, BOB = PeerId("a1" * 32), PeerId("b2" * 32)
NOW = UnixMillis(1_800_000_000_000)
KEY = signing_key(b"\x07" * 32)
BROKER = BrokerId(KEY.public)


class Log:
    """A broker's log of `count` sends, as its peer fetches it."""

    def __init__(self, count: int) -> None:
        self.chain = Chain(MESH)
        self.rows: list[str] = []
        self.hashes: list[Digest] = []
        for _ in range(count):
            self.send()

    def send(self) -> None:
        """Record one more message."""
        self.add(details(priority="next", size_class=11))

    def add(self, what: Any) -> None:
        n, previous = self.chain.n, self.chain.head
        record = self.chain.add("send", ALICE, BOB, what, NOW)
        row = AuditRow(ALICE[:16], NOW, "send", n, MESH, what.metadata, previous, BOB[:16])
        self.rows.append(encode_json(row).decode())
        self.hashes.append(record.hash)

    def checkpoint(self) -> Statement:
        return checkpoint(MESH, self.chain.n, self.chain.head, NOW, KEY)


def forged(rows: list[str], n: int, **changes: Any) -> list[str]:
    """`rows` with row `n` changed, and every later one chained anew so that it links up."""
    bodies = [msgspec.json.decode(row) for row in rows]
    bodies[n].update(changes)
    for before, after in itertools.pairwise(range(n, len(bodies))):
        bodies[after]["prev_hash"] = row_hash(statements.encode(bodies[before]))
    return [statements.encode(body).decode() for body in bodies]


def checked(view: AuditView, rows: list[str], end: Statement, receipts: dict[int, str] | None = None) -> AuditView:
    return verify(view, rows, end, receipts or {}, mesh=MESH, broker=BROKER)


@pytest.mark.parametrize("metadata", [Metadata(), Metadata(3, "now", "revoked", 12), Metadata(priority="low")])
def test_a_row_is_encoded_as_the_canonical_encoder_would(metadata: Metadata) -> None:
    """The fast encoder and `statements.encode` agree on every byte."""
    row = AuditRow(ALICE[:16], NOW, "send", 7, MESH, metadata, "0" * 64, "")

    raw = encode_json(row)

    assert raw == statements.encode(as_body(row))
    assert row_hash(raw) == statements.digest("audit", raw)


def test_a_row_holds_the_closed_list_and_nothing_else() -> None:
    """The fields that are written are those that a verifier allows."""
    row = as_body(AuditRow("", NOW, "drop", 0, MESH, Metadata(1, "now", "revoked", 1), "0" * 64, ""))

    assert list(row) == sorted(ROW_FIELDS)
    assert list(row["metadata"]) == sorted(METADATA_FIELDS)


def test_event_types_and_reasons_are_enumerations() -> None:
    """Free text has no place in the log."""
    assert set(EVENT_TYPES) >= {"send", "acknowledge", "append", "connect", "disconnect", "expire", "drop", "refuse"}
    assert METADATA_FIELDS["reason"] == REASONS
    assert list(REASONS) == sorted(set(REASONS))


@pytest.mark.parametrize("values", [EVENT_TYPES, REASONS, ROW_FIELDS, METADATA_FIELDS])
def test_the_page_names_every_value_of_the_closed_lists(values: Iterable[str]) -> None:
    """docs/spec/audit.md is complete."""
    assert [value for value in values if f"`{value}`" not in PAGE] == []


async def test_the_table_has_the_columns_of_a_row_and_its_hash() -> None:
    """Nothing is stored beside what is chained."""
    migrations = load_migrations("claudemesh.broker.store.sqlite.migrations")

    async with Database(None, migrations=migrations) as database:
        columns = await database.read(lambda c: [row[1] for row in c.execute("PRAGMA table_info(audit_log)")])

    assert sorted(columns) == sorted([*ROW_FIELDS, "hash"])


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 0), (2, 1), (1_024, 10), (1_025, 11), (524_288, 19)])
def test_only_the_class_of_a_size_is_recorded(size: int, expected: int) -> None:
    """The smallest k with size ≤ 2^k."""
    assert size_class(size) == expected


def test_an_honest_log_verifies_in_one_piece_and_in_several() -> None:
    """A verifier that remembers where it was needs only the rows after that."""
    log = Log(5)
    first = checked(AuditView(), log.rows, log.checkpoint(), {2: log.hashes[2]})
    log.send()

    second = checked(first, log.rows[5:], log.checkpoint(), {5: log.hashes[5]})

    assert (second.n, second.head) == (6, log.hashes[5])
    assert second.checkpoint == log.checkpoint()


def test_a_truncated_log_is_found_by_its_checkpoint() -> None:
    """Rows that the checkpoint signs are missing at the end."""
    log = Log(5)

    with pytest.raises(AuditConflict) as caught:
        checked(AuditView(), log.rows[:-1], log.checkpoint())

    assert caught.value.code == "audit_checkpoint"


def test_a_log_truncated_with_its_checkpoint_is_found_by_a_receipt() -> None:
    """The broker signs a shorter log than it has acknowledged."""
    log = Log(5)
    receipts = {4: log.hashes[4]}
    short = Log(4)

    with pytest.raises(AuditConflict) as caught:
        checked(AuditView(), short.rows, short.checkpoint(), receipts)

    assert caught.value.code == "audit_truncated"


def test_a_log_shorter_than_what_was_verified_is_found() -> None:
    """A verifier never goes back."""
    log = Log(5)
    view = checked(AuditView(), log.rows, log.checkpoint())

    with pytest.raises(AuditConflict) as caught:
        checked(view, [], Log(4).checkpoint())

    assert caught.value.code == "audit_truncated"


def test_a_log_rewritten_before_what_was_verified_is_found() -> None:
    """Rows 0 to 4 were verified; the broker signs another row 2 and the chain after it."""
    log = Log(5)
    view = checked(AuditView(), log.rows, log.checkpoint())
    other = Log(2)
    other.add(details(priority="now", size_class=1))
    for _ in range(3):
        other.send()

    with pytest.raises(AuditConflict) as caught:
        checked(view, other.rows[5:], other.checkpoint())

    assert caught.value.code == "audit_chain"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda rows: rows[:2] + rows[3:],
        lambda rows: [rows[0], rows[2], rows[1], *rows[3:]],
        lambda rows: [*rows[:3], rows[2], *rows[3:]],
        lambda rows: rows[1:],
    ],
    ids=["removed", "reordered", "repeated", "beheaded"],
)
def test_rows_that_do_not_link_up_are_found(tamper: Any) -> None:
    """Each row names its number and the hash of the one before."""
    log = Log(5)

    with pytest.raises(AuditConflict) as caught:
        checked(AuditView(), tamper(log.rows), log.checkpoint())

    assert caught.value.code == "audit_chain"


def test_a_rewritten_row_is_found_by_its_receipt_though_the_chain_is_whole() -> None:
    """The broker rewrites row 2, chains the rest anew and signs the new end: the receipt still tells."""
    log = Log(5)
    rows = forged(log.rows, 2, event_type="refuse")
    end = checkpoint(MESH, 5, row_hash(rows[-1].encode()), NOW, KEY)

    with pytest.raises(AuditConflict) as caught:
        checked(AuditView(), rows, end, {2: log.hashes[2]})

    assert caught.value.code == "audit_receipt"
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"payload": "c2VjcmV0"}, "field"),
        ({"metadata": {"name": "bob"}}, "field"),
        ({"metadata": {"reason": "because"}}, "field_type"),
        ({"metadata": {"size_class": -1}}, "field_type"),
        ({"event_type": "read"}, "field_type"),
        ({"actor_peer_id": "alice"}, "field_type"),
        ({"target_peer_id": "b2" * 32}, "field_type"),
        ({"mesh_id": "cd" * 32}, "stmt"),
    ],
)
def test_a_row_that_says_more_than_it_may_is_refused(changes: dict[str, Any], code: str) -> None:
    """The field list is closed, in the row and in its metadata."""
    log = Log(3)
    rows = forged(log.rows, 1, **changes)
    end = checkpoint(MESH, 3, row_hash(rows[-1].encode()), NOW, KEY)

    with pytest.raises(Malformed) as caught:
        checked(AuditView(), rows, end)

    assert caught.value.code == code


def test_a_checkpoint_of_somebody_else_proves_nothing() -> None:
    """Only the key that the roster names may sign the end."""
    log = Log(2)
    other = signing_key(b"\x08" * 32)
    end = log.checkpoint()

    with pytest.raises(Malformed):
        checked(AuditView(), log.rows, checkpoint(MESH, 2, log.chain.head, NOW, other))
    with pytest.raises(BadSignature):
        checked(AuditView(), log.rows, Statement(end.b.replace('"n":2', '"n":1'), end.k, end.s))


def test_a_checkpoint_of_another_mesh_is_refused() -> None:
    """A broker that serves two meshes cannot swap their logs."""
    log = Log(2)

    with pytest.raises(Malformed) as caught:
        checked(AuditView(), log.rows, checkpoint(MeshId("cd" * 32), 2, log.chain.head, NOW, KEY))

    assert caught.value.code == "stmt"
