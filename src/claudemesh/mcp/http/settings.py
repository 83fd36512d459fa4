"""What an operator of the HTTP server can choose, and what a client says in its URL (docs/mcp.md §7)."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from claudemesh.errors import UsageError
from claudemesh.listen import Listen
from claudemesh.mcp.options import Options

PATH: Final = "/mcp"
DEFAULT_PORT: Final = 7910
MAX_CLIENTS: Final = 64
MAX_SESSIONS: Final = 200
"""Of all clients, in both eras of the protocol; the daemon serves 256 of every kind."""
RESERVED_SESSIONS: Final = 8
"""Of those, for each client."""
SESSION_IDLE_S: Final = 30 * 60.0
"""A session without a request or an open stream ends after this long."""
MAX_BODY_BYTES: Final = 4 << 20
"""The largest message is 512 KiB of text, of which JSON may write each byte with six."""
MAX_CONNECTIONS: Final = 512
MAX_EXCHANGES: Final = 384
"""Requests that are being answered, open streams included: fewer than connections, so that one can still be refused."""
RESERVED_EXCHANGES: Final = 16
"""Of those, for each client."""

_CLIENT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?\Z")
_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
_TEXTS: Final = frozenset({"label", "mesh"})


@dataclass(frozen=True, slots=True)
class Settings:
    """One server."""

    listen: Listen
    clients: tuple[str, ...]
    """Who may use it: each has a token of its own."""
    options: Options
    """What holds for a session whose URL says nothing else."""
    allow_remote: bool = False
    allowed_hosts: tuple[str, ...] = ()
    session_idle_s: float = SESSION_IDLE_S

    def check(self) -> None:
        """Refuse what would be open to others without having been asked for, or reachable by nobody.

        Raises:
            UsageError: Says which option to change.
        """
        if not self.listen.is_loopback and not self.allow_remote:
            said = f"other machines could connect to {self.listen.name}: say --allow-remote if they are to"
            raise UsageError("usage", said)
        if not self.listen.is_loopback and not self.allowed_hosts:
            raise UsageError("usage", "name the host that clients dial, with --allow-host HOST[:PORT]")
        if len(self.clients) > MAX_CLIENTS:
            raise UsageError(
                "usage", f"one server has {MAX_CLIENTS} clients at most: start another one, on its own port"
            )
        for name in self.clients:
            if not _CLIENT.match(name):
                raise UsageError("usage", "--client takes up to 32 of a-z, 0-9 and -, the first one no -")
        for host in self.allowed_hosts:
            if not _HOST.match(host):
                raise UsageError("usage", "--allow-host takes a name with or without a port, as in box.local:7910")

    def hosts(self, port: int) -> list[str]:
        """Every `Host` that a request may carry; any other one comes from a page that rebound a name to us."""
        own = _LOOPBACK_NAMES if self.listen.is_loopback else (self.listen.name,)
        return [*(f"{name}:{port}" for name in own), *self.allowed_hosts]

    def origins(self, port: int) -> list[str]:
        """Every `Origin` that a request may carry, where it carries one: only pages that we ourselves would serve."""
        return [f"{scheme}://{host}" for host in self.hosts(port) for scheme in ("http", "https")]


def options_of_url(query: str, defaults: Options, client: str) -> Options:
    """What a client says in its URL, as another one says it on the command line of `claudemesh mcp`.

    Args:
        query: Such as `label=api&mesh=team&tag=repo%3Dbilling&peers-as-tools`.
        client: Whose token came with it; its name is the label where none is given.

    Raises:
        UsageError: It has another word, or one twice.
    """
    found: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=20):
        if name == "tag":
            tags += (value,)
        elif name in _TEXTS and name not in found:
            found[name] = value
        elif name == "peers-as-tools" and value in ("", "1", "true"):
            found["peers_as_tools"] = True
        else:
            raise UsageError("usage", "a URL takes label, mesh, tag and peers-as-tools, each but tag once")
    options = defaults._replace(tags=tags or defaults.tags, **found)
    return options._replace(label=options.label or client)


def session_key(client: str, options: Options) -> str:
    """What the daemon knows an agent by of whom the protocol says no session: the same as long as its URL is."""
    told = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:16]
    return f"http:{client}:{told}"


def without_repeats(names: Iterable[str]) -> tuple[str, ...]:
    """In the order given."""
    return tuple(dict.fromkeys(names))
