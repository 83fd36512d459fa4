"""Settings of a node that cannot be right are refused before anything is opened (docs/spec/cluster.md §1)."""

from pathlib import Path

import pytest

from claudemesh.broker.config import Settings, parse_database
from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.errors import UsageError
from claudemesh.listen import Listen

LISTEN, KEY = Listen("127.0.0.1", 0), Path("broker.key")
SHARED = DatabaseUrl("postgresql://mesh:secret@db/mesh")


def refusal(**given: object) -> str:
    with pytest.raises(UsageError) as refused:
        Settings(listen=LISTEN, **given).check()  # type: ignore[arg-type]
    return refused.value.detail


@pytest.mark.parametrize("database", [None, Path("broker.db")])
def test_a_bus_with_sqlite_is_refused_in_plain_words(database: Path | None) -> None:
    """A file has one broker; two of them on copies of it would each believe to be the only one."""
    assert "--database postgresql://" in refusal(database=database, bus="nats://127.0.0.1:4222", key=KEY)


def test_a_shared_database_needs_a_key_file() -> None:
    """The key is not in the database, where a stolen backup would hold it."""
    assert "--key" in refusal(database=SHARED, bus="nats://127.0.0.1:4222")
    assert "--key" in refusal(database=SHARED)


BUSES = ["redis://127.0.0.1", "127.0.0.1:4222", "nats://:4222", "nats://a,http://b", "nats://u:p@[a", ""]


@pytest.mark.parametrize("bus", BUSES)
def test_a_bus_that_is_no_nats_server_is_refused(bus: str) -> None:
    """Without repeating it: it may hold a password."""
    message = refusal(database=SHARED, bus=bus, key=KEY)

    assert "nats://HOST:PORT" in message
    assert bus == "" or bus not in message


def test_several_servers_of_one_bus_are_taken() -> None:
    Settings(listen=LISTEN, database=SHARED, bus="nats://a:4222,tls://b", key=KEY).check()


def test_settings_show_no_password() -> None:
    """They may end in a log or a traceback."""
    shown = repr(Settings(listen=LISTEN, database=SHARED, bus="nats://u:hunter2@a:4222", key=KEY))

    assert "secret" not in shown
    assert "hunter2" not in shown


def test_a_database_is_a_file_or_a_server() -> None:
    assert parse_database("sqlite:////var/broker.db") == Path("/var/broker.db")
    assert parse_database("postgresql://db/mesh") == DatabaseUrl("postgresql://db/mesh")
    with pytest.raises(UsageError) as refused:
        parse_database("mysql://user:secret@db")
    assert "secret" not in refused.value.detail
    with pytest.raises(UsageError) as refused:
        parse_database("postgresql://user:secret@[db")
    assert "secret" not in refused.value.detail


@pytest.mark.parametrize("otlp", ["ftp://c:4318", "http://u:secret@c:port", "http://u:secret@[c", "http://"])
def test_a_collector_that_is_none_is_refused(otlp: str) -> None:
    """And not found out by spans that are dropped."""
    message = refusal(database=Path("broker.db"), otlp=otlp)

    assert "--otlp takes" in message
    assert "secret" not in message
