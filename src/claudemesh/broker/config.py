"""Settings of one broker, checked before anything is opened (docs/spec/broker.md §1)."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from claudemesh.broker.policy import Limits
from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.errors import UsageError
from claudemesh.listen import Listen
from claudemesh.transport.frames import PATH

DEFAULT_PORT: Final = 7900
BUS_SCHEMES: Final = ("nats", "tls")
_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can choose.

    `database` None keeps everything in memory: for tests and for nothing else. `bus` is there where other nodes use
    the same database. `origins` are the URLs
    that this broker answers for; the first one is used where the request names no known host.
    """

    listen: Listen | None = None
    unix: Path | None = None
    database: Path | DatabaseUrl | None = None
    key: Path | None = None
    bus: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    mesh_creation: Literal["open", "closed"] = "open"
    trust_forwarded_for: bool = False
    limits: Limits = field(default_factory=Limits)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_file: Path | None = None
    otlp: str | None = field(default=None, repr=False)
    """Base URL of an OpenTelemetry collector; None traces nothing."""

    def check(self) -> None:
        """Refuse settings under which the broker would be insecure or unreachable.

        Raises:
            UsageError: Says which option to change.
        """
        if self.listen is None and self.unix is None:
            raise UsageError("usage", "nothing to listen on: give --listen or --unix")
        if self.unix is not None and sys.platform == "win32":
            raise UsageError("usage", "this platform has no Unix sockets for brokers")
        self.key_path()
        self._check_bus()
        self._check_otlp()
        for origin in self.origins:
            parts = _parts(origin)
            if parts.scheme not in ("ws", "wss") or not parts.netloc or parts.path != PATH or len(origin) > 400:
                raise UsageError("usage", f"--origin takes a URL such as wss://host{PATH}, not {origin[:80]!r}")
        if self.listen is not None and not self.listen.is_loopback and not self.origins:
            raise UsageError(
                "usage",
                "a broker that others can reach must know its own name: give --origin wss://host/ws"
                " (peers sign it, so that nobody can relay their hello)",
            )

    def key_path(self) -> Path | None:
        """Where the broker's key is; None for a key that lives as long as the process; raises as `check`."""
        if self.key is not None or self.database is None:
            return self.key
        if isinstance(self.database, Path):
            return self.database.with_name(self.database.name + ".key")
        raise UsageError("usage", "a PostgreSQL database has no place for the signing key: give --key FILE")

    def _check_bus(self) -> None:
        if self.bus is None:
            return
        if self.database is None or isinstance(self.database, Path):
            raise UsageError(
                "usage",
                "--bus is for several nodes that share a database: give --database postgresql://…"
                " (a SQLite file has one broker, which needs no bus)",
            )
        for url in self.bus.split(","):
            parts = _parts(url)
            if parts.scheme not in BUS_SCHEMES or not parts.hostname:
                raise UsageError("usage", "--bus takes nats://HOST:PORT or tls://HOST:PORT, several with commas")

    def _check_otlp(self) -> None:
        if self.otlp is not None:
            parts = _parts(self.otlp)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise UsageError("usage", "--otlp takes the base URL of a collector, such as http://127.0.0.1:4318")


class Origins:
    """Which of the broker's addresses a link was dialled as; never an address that a client made up."""

    __slots__ = ("_by_host", "_first", "_unix")

    def __init__(self, settings: Settings, port: int | None) -> None:
        """`port` is the one that is bound, where there is one."""
        urls = list(settings.origins)
        if settings.listen is not None and settings.listen.is_loopback and port is not None:
            urls += [f"ws://{name}:{port}{PATH}" for name in _LOOPBACK_NAMES]
        self._by_host = {urlsplit(url).netloc.lower(): url for url in reversed(urls)}
        self._unix = f"unix://{settings.unix}" if settings.unix is not None else None
        self._first = urls[0] if urls else self._unix or ""

    def of_request(self, host: str | None, unix: bool) -> str:
        """The origin to sign into the challenge.

        Args:
            host: The request's Host header, not trusted.
            unix: Whether the request came over the Unix socket.
        """
        if unix and self._unix is not None:
            return self._unix
        return self._by_host.get((host or "").lower(), self._first)


def parse_database(url: str) -> Path | DatabaseUrl:
    """The file that `sqlite:///FILE` names (four slashes for an absolute path), or a `postgresql://` URL.

    Raises:
        UsageError: It is neither; the text of a URL, which may hold a password, is not repeated.
    """
    if url.partition("://")[0] in ("postgresql", "postgres"):
        return DatabaseUrl(url)
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise UsageError(
            "usage", f"--database takes sqlite:///FILE or postgresql://…, not {url.partition(':')[0][:40]!r}"
        )
    return Path(path)


def _parts(url: str) -> SplitResult:
    """Its parts; of one that cannot be read none, and nobody is told what stood in it."""
    try:
        found = urlsplit(url)
        _ = found.port
    except ValueError:
        return urlsplit("")
    return found
