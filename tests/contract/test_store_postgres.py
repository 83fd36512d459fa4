"""What only the PostgreSQL store has to keep: several nodes, a server that goes away, no secrets shown."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from claudemesh.broker.store.base import AuditEvent, LinkId, Store, Stored, Usage
from claudemesh.broker.store.postgres import DatabaseUrl, PostgresStore, connection, mailboxes, transaction
from claudemesh.broker.store.postgres.lane import RECONNECT_MAX_S
from claudemesh.errors import LocalError, UsageError
from claudemesh.types import BrokerId, PeerId, SessionId
from tests.contract.test_store import (
    ALICE,
    BOB,
    CAROL,
    LATER,
    MESH,
    NOW,
    notice,
    session,
    submission,
    verified,
)
from tests.contract.test_store_channels import fan_out, receipt
from tests.postgres import PostgresServer, postgres_server

KEY = BrokerId("ab" * 32)
END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'claudemesh-broker' AND datname = current_database()
"""
AUDIT_COLUMNS = "id mesh_id event_type actor_peer_id target_peer_id metadata created_at prev_hash hash"
PRESENCE_COLUMNS = "mesh_id peer_id session_id sid pid cwd status connected_at last_seen link"


@pytest.fixture
async def stores(empty_database: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """Two processes' stores of one database."""
    first, second = (PostgresStore(DatabaseUrl(empty_database)) for _ in range(2))
    await first.open()
    await second.open()
    yield first, second
    await first.close()
    await second.close()


async def recovered(store: Store) -> None:
    """Return once the store is ready again; it tries by itself."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.ping()
            except LocalError:
                await asyncio.sleep(0.05)


# Several nodes


async def test_two_nodes_write_one_chain_and_one_order(stores: tuple[PostgresStore, PostgresStore]) -> None:
    """Whatever both do at once: one chain that holds every receipt, and no number is given twice."""
    answers: list[Stored] = []

    async def work(store: PostgresStore, number: int) -> None:
        stored = await store.append([submission(), submission(to=CAROL)], NOW)
        [post] = await store.fan_out([fan_out(BOB, CAROL, id=f"{number:032x}")], NOW)
        answers.extend([*stored, receipt(post)])
        await store.acknowledge(MESH, BOB, [stored[0].q], NOW)
        await store.audit([AuditEvent(mesh=MESH, event_type="connect", actor=ALICE)], NOW)
        await store.expire(NOW, 10, notice)

    await asyncio.gather(*(work(store, 2 * n + at) for n in range(15) for at, store in enumerate(stores)))

    rows = await verified(stores[0], receipts=answers)
    queued = await stores[1].lease(MESH, CAROL, LinkId(1), NOW, 1_000)
    assert len(rows) == 30 * 5
    assert len({row.q for row in queued}) == 60


async def test_only_one_of_two_nodes_appends_after_an_entry(stores: tuple[PostgresStore, PostgresStore]) -> None:
    """N07: two nodes never both extend the same roster."""
    await stores[0].append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=True)

    won = await asyncio.gather(
        *(
            store.append_entries(MESH, 0, [b"by %d" % at], NOW, actor=ALICE, served=True)
            for _ in range(5)
            for at, store in enumerate(stores)
        )
    )

    assert won.count(True) == 1
    assert len(await stores[1].entries(MESH, 0, 10)) == 2


async def test_leases_of_two_nodes_share_nothing(stores: tuple[PostgresStore, PostgresStore]) -> None:
    """Links of both ask for one mailbox at once: each row goes to one, and all are given out."""
    nodes = [await store.join(KEY, alone=False) for store in stores]
    await stores[0].append([submission() for _ in range(600)], NOW)

    async def drain(store: PostgresStore, link: LinkId) -> list[int]:
        taken: list[int] = []
        while rows := await store.lease(MESH, BOB, link, NOW, 3):
            taken += [row.q for row in rows]
        return taken

    found = await asyncio.gather(
        *(
            drain(store, LinkId(node.first_link + n))
            for n in range(3)
            for store, node in zip(stores, nodes, strict=True)
        )
    )
    rest = await stores[0].lease(MESH, BOB, nodes[0].first_link, NOW, 1_000)

    qs = [q for some in found for q in some] + [row.q for row in rest]
    assert len(qs) == len(set(qs)) == 600


async def test_what_another_node_wrote_is_in_the_usage_within_seconds(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    """A quota is not evaded by writing over another node."""
    for store in stores:
        await store.join(KEY, alone=False)
    assert await stores[0].mailbox_usage(MESH, BOB) == Usage(0, 0)
    await stores[1].append([submission()], NOW)

    async with asyncio.timeout(10):
        while await stores[0].mailbox_usage(MESH, BOB) != Usage(1, 1_000):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_mesh_that_another_node_deleted_and_that_came_back_is_a_new_one(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    """Nothing that the first node had cached of the old mesh is used for the new one."""
    first, second = stores
    await first.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=False)
    await first.append([submission()], NOW)
    await second.delete_mesh(MESH, unserved_before=LATER)
    await second.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=True)

    [answer] = await first.append([submission()], NOW)

    assert [row.q for row in await second.lease(MESH, BOB, LinkId(1), NOW, 10)] == [answer.q]
    assert len(await verified(second, receipts=[answer])) == 2


async def test_node_that_stops_in_a_transaction_does_not_hold_the_others_for_long(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    """A frozen process keeps its locks; the server takes them away, and what it wanted to store is not stored."""
    first, second = stores
    begun = asyncio.Event()

    async def stand_still(held: transaction.Transaction) -> None:
        begun.set()
        await asyncio.sleep(8)

    frozen = asyncio.ensure_future(first._lane.do(stand_still, [MESH]))
    await begun.wait()
    async with asyncio.timeout(7.5):
        [answer] = await second.append([submission()], NOW)

    with pytest.raises(LocalError) as refused:
        await frozen
    assert (answer.audit_n, refused.value.code) == (0, "database_unreachable")
    assert (await first.append([submission()], NOW))[0].audit_n == 1


async def test_node_that_stops_while_it_sends_rows_does_not_hold_the_others(
    empty_database: str, stores: tuple[PostgresStore, PostgresStore]
) -> None:
    """The server waits for the rest of a COPY without an end: whoever is held up ends that connection."""
    frozen = await connection.connect(DatabaseUrl(empty_database), patient=True)
    await frozen.execute("BEGIN")
    await transaction.Transaction(frozen).hold([MESH])
    begun = asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        begun.set()
        await asyncio.sleep(60)
        yield b""

    sending = asyncio.ensure_future(frozen._driver.copy_to_table("readiness", source=rows()))
    await begun.wait()
    [answer] = await stores[1].append([submission()], NOW)

    assert answer.audit_n == 0
    assert frozen.is_closed
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_broker_that_was_alone_and_closed_leaves_its_place_and_its_sessions(empty_database: str) -> None:
    """The next process joins at once, and learns who was connected."""
    first = PostgresStore(DatabaseUrl(empty_database))
    await first.open()
    node = await first.join(KEY, alone=True)
    await first.set_presence([session(link=node.first_link)])
    await first.close()

    second = PostgresStore(DatabaseUrl(empty_database))
    await second.open()
    await second.join(KEY, alone=True)
    restored = await second.expire_presence(LATER)
    await second.close()

    assert [row.peer for row in restored] == [ALICE]


async def test_broker_that_was_alone_and_was_killed_is_followed_within_seconds(
    postgres: PostgresServer, empty_database: str
) -> None:
    """Its connections end with it; no other broker has to be told."""
    first = PostgresStore(DatabaseUrl(empty_database))
    await first.open()
    await first.join(KEY, alone=True)
    postgres.sql(END_SESSIONS, empty_database)

    second = PostgresStore(DatabaseUrl(empty_database))
    await second.open()
    async with asyncio.timeout(10):
        await second.join(KEY, alone=True)

    await second.close()
    await first.close()


# A server that goes away


async def test_connection_lost_in_the_middle_fails_what_was_under_way_and_nothing_else(
    postgres: PostgresServer, stores: tuple[PostgresStore, PostgresStore]
) -> None:
    """What was answered is stored; what failed may be sent again under the same id; the store goes on by itself."""
    store, url = stores[0], stores[0]._url.secret
    answered: list[Stored] = []
    failed: list[tuple[Any, LocalError]] = []

    async def send() -> None:
        for _ in range(10):
            one = submission()
            try:
                answered.extend(await store.append([one], NOW))
            except LocalError as error:
                failed.append((one, error))

    async def cut() -> None:
        for _ in range(4):
            await asyncio.to_thread(postgres.sql, END_SESSIONS, url)

    await asyncio.gather(cut(), *(send() for _ in range(20)))
    await recovered(store)
    again = [(await store.append([one], NOW))[0] for one, _ in failed]

    rows = await store.lease(MESH, BOB, LinkId(1), NOW, 1_000)
    assert {error.code for _, error in failed} == {"database_unreachable"}
    assert {row.q for row in rows} == {answer.q for answer in [*answered, *again]}
    assert len(rows) == 200
    await verified(store, receipts=[*answered, *again])


async def test_server_that_stops_and_starts_is_used_again(empty_server: PostgresServer) -> None:
    """Calls are refused at once meanwhile, reads too, and readiness says so; no restart is needed."""
    store = PostgresStore(DatabaseUrl(empty_server.database()))
    await store.open()
    [before] = await store.append([submission()], NOW)
    await asyncio.to_thread(empty_server.stop)

    codes = set()
    for call in (store.ping(), store.append([submission()], NOW), store.meshes(), store.audit_head(MESH)):
        with pytest.raises(LocalError) as refused:
            await call
        codes.add(refused.value.code)
    await asyncio.to_thread(empty_server.start)
    async with asyncio.timeout(3 * RECONNECT_MAX_S):
        await recovered(store)
    [after] = await store.append([submission()], NOW)
    await store.close()

    assert codes == {"database_unreachable"}
    assert (before.audit_n, after.audit_n) == (0, 1)


@pytest.fixture
def empty_server() -> Any:
    with postgres_server(fsync="off") as server:
        yield server


# What does not fit


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda url: url.replace("port=", "port=1"), "database_unreachable", ""),
        (lambda url: "postgresql://claudemesh:S3cret!@127.0.0.1:1/mesh", "database_unreachable", ""),
        (lambda url: "postgresql://claudemesh:S3cret!@host.invalid/mesh", "database_unreachable", ""),
        (lambda url: url.replace("claudemesh@/mesh_", "claudemesh:S3cret!@/missing_"), "database_refused", "no such"),
        (lambda url: url.replace("claudemesh@", "nobody:S3cret!@"), "database_refused", "the account is refused"),
        (lambda url: url + "&sslmode=S3cret!", "database_refused", ""),
    ],
)
async def test_database_that_cannot_be_used_says_why_without_its_password(
    empty_database: str, change: Any, code: str, words: str
) -> None:
    """Neither the error nor its traceback, with the causes, shows it."""
    with pytest.raises(LocalError) as refused:
        await PostgresStore(DatabaseUrl(change(empty_database))).open()

    assert refused.value.code == code
    assert words in refused.value.detail
    shown = "".join(traceback.format_exception(refused.value, chain=True))
    assert "S3cret" not in shown
    assert "postgresql://" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["postgresql:/x", "mysql://u:S3cret@h/d", "postgresql://u:S3cret@h:port/d", "postgresql://u:S3cret@[h/d"]
)
def test_url_that_cannot_be_read_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        DatabaseUrl(text)

    assert "S3cret" not in "".join(traceback.format_exception(refused.value))


def test_url_is_shown_without_its_secrets() -> None:
    url = DatabaseUrl("postgresql://mesh:S3cret@db.example:5433/mesh?password=S3cret&sslmode=require&passfile=S3cret")

    assert str(url) == "postgresql://mesh@db.example:5433/mesh"
    assert "S3cret" not in repr(url)
    assert "S3cret" in url.secret


@asynccontextmanager
async def connected_where(
    postgres: PostgresServer, database: str, setting: str, value: str
) -> AsyncIterator[connection.Connection]:
    """A connection of ours to a database whose owner wants a setting to be another than ours."""
    postgres.sql(f"ALTER ROLE claudemesh SET {setting} = {value}", database)
    opened = await connection.connect(DatabaseUrl(database))
    yield opened
    await opened.close()
    postgres.sql(f"ALTER ROLE claudemesh RESET {setting}", database)


async def test_commit_is_never_left_to_chance(postgres: PostgresServer, empty_database: str) -> None:
    """Also where the database's owner has turned the wait for the disk off."""
    async with connected_where(postgres, empty_database, "synchronous_commit", "off") as opened:
        value = await opened.value("SHOW synchronous_commit")

    assert value == "on"


async def test_a_transaction_that_waited_reads_what_the_other_wrote(
    postgres: PostgresServer, empty_database: str
) -> None:
    """Also where the database's owner has made another level of isolation the default: there, whoever waits fails."""
    wish = ("default_transaction_isolation", "'repeatable read'")
    async with connected_where(postgres, empty_database, *wish) as opened:
        value = await opened.value("SHOW transaction_isolation")

    assert value == "read committed"


async def test_acknowledged_rows_are_found_by_their_keys_after_a_mailbox_was_vacuumed_empty(
    postgres: PostgresServer, stores: tuple[PostgresStore, PostgresStore]
) -> None:
    """The planner believes it empty then, and would compare each of its rows with each that was acknowledged."""
    url = stores[0]._url.secret
    postgres.sql(
        "INSERT INTO mailbox (recipient, q, sender, message_id, kind, size, expires_at, accepted_at, payload)"
        " SELECT i % 100, i, 1, md5(i::text), 'dm', 1300, 1, 1, repeat('x', 1300)::bytea"
        " FROM generate_series(1, 20000) i",
        url,
    )
    postgres.sql("DELETE FROM mailbox WHERE q <= 19980", url)
    postgres.sql("VACUUM mailbox", url)
    opened = await connection.connect(DatabaseUrl(url))
    numbers = list(range(20_001, 23_201))

    plan = await opened.fetch(f"EXPLAIN {mailboxes._DELETE}", [number % 100 for number in numbers], numbers)
    await opened.close()

    text = "\n".join(row[0] for row in plan)
    assert text.count("Index Cond: ((recipient = k") == 2
    assert "Join Filter" not in text


async def test_label_that_the_database_cannot_hold_is_kept_as_far_as_it_can(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    """A peer chooses its labels: none of them may stop the broker."""
    odd = session(number=1)
    await stores[0].set_presence([type(odd)(**{f: getattr(odd, f) for f in odd.__struct_fields__} | {"cwd": "a\0b"})])

    assert [row.cwd for row in await stores[0].presence(MESH)] == ["a\ufffdb"]


async def test_tables_that_the_faq_names_hold_metadata_only(
    postgres: PostgresServer, stores: tuple[PostgresStore, PostgresStore]
) -> None:
    """`audit_log` and `presence`, column by column."""
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = '{}' ORDER BY ordinal_position"
    url = stores[0]._url.secret

    assert postgres.sql(columns.format("audit_log"), url).replace("\n", " ") == AUDIT_COLUMNS
    assert postgres.sql(columns.format("presence"), url).replace("\n", " ") == PRESENCE_COLUMNS


async def test_session_can_be_named_by_nobody_else(stores: tuple[PostgresStore, PostgresStore]) -> None:
    """Two nodes announce one session at once: one of them has it, and the other one's link is told."""
    links = [(await store.join(KEY, alone=False)).first_link for store in stores]

    before = await asyncio.gather(
        *(store.take_over(session(BOB, link=link)) for store, link in zip(stores, links, strict=True))
    )

    [row] = await stores[0].presence(MESH)
    other = next(link for link in links if link != row.link)
    assert sorted(map(str, before)) == sorted(map(str, [None, other]))
    assert (row.peer, row.session) == (PeerId(BOB), SessionId(f"{1:064x}"))
