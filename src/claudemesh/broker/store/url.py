"""The URL of a PostgreSQL database, which may hold a password that is never shown."""

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from claudemesh.errors import UsageError

_SCHEMES: Final = ("postgresql", "postgres")
_SHOWN: Final = frozenset({"host", "port"})
"""What may be repeated of a URL's query; anything else may be a secret."""


class DatabaseUrl:
    """`postgresql://USER@HOST:PORT/DATABASE`, as libpq reads it; `str()` and `repr()` leave the secrets out."""

    __slots__ = ("_shown", "secret")

    def __init__(self, text: str) -> None:
        """Read a URL, or raise `UsageError` without repeating what could be a password."""
        if text.partition("://")[0] not in _SCHEMES or not text.partition("://")[1]:
            raise UsageError("usage", "--database takes sqlite:///FILE or postgresql://USER@HOST/DATABASE")
        try:
            self._shown = _without_secrets(text)
        except ValueError:
            raise UsageError("usage", "the URL of --database cannot be read: is the port a number?") from None
        self.secret = text
        """The URL with its password: for the driver and for nothing else."""

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"DatabaseUrl({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseUrl) and self.secret == other.secret

    def __hash__(self) -> int:
        return hash(self.secret)


def _without_secrets(text: str) -> str:
    parts = urlsplit(text)
    account, _, address = parts.netloc.rpartition("@")
    user = account.partition(":")[0]
    for one in address.split(","):
        port = one.rpartition("]")[2].partition(":")[2]
        if port and not port.isdigit():
            raise ValueError("port")
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name in _SHOWN], safe="/")
    return urlunsplit((parts.scheme, f"{user}@{address}" if user else address, parts.path, query, ""))
