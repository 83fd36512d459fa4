"""Our table in a TOML file that others write to as well: appended as text, and cut out again, so that comments stay."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from claudemesh.hosts.base import SERVER, Unwritable

SERVERS: Final = "mcp_servers"
MARK: Final = "# claudemesh: `claudemesh uninstall codex` removes this table\n"
"""Stands above our table, and nothing below it: Codex writes tables of its own before what stands at the end."""
_SECTION: Final = re.compile(r"^(?=[ \t]*\[)", re.MULTILINE)
_OUR_SECTION: Final = re.compile(rf"\s*\[\s*{SERVERS}\s*\.\s*\"?{SERVER}\"?\s*[.\]]")
_NOTHING_BUT_COMMENTS: Final = re.compile(r"^(?:[ \t\r]*(?:#[^\n]*)?\n)*\Z", re.MULTILINE)


def read_text(path: Path) -> str:
    """The bytes as text, with the line ends that they have; empty when there is no file.

    Raises:
        Unwritable: They are not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Unwritable(path, "cannot be read", "") from error


def has_table(text: str) -> bool:
    """Whether our table is in a file, by the comment above it."""
    return MARK in text


def entry_in(text: str) -> dict[str, Any]:
    """Our entry in a valid file; empty when somebody left nothing of it but our comment."""
    servers = tomllib.loads(text).get(SERVERS)
    entry = servers.get(SERVER) if isinstance(servers, dict) else None
    return entry if isinstance(entry, dict) else {}


def with_table(path: Path, text: str, table: str) -> str:
    """A file's text with our table at the end, in place of the one that it has.

    Args:
        table: Its head and rows.

    Raises:
        Unwritable: The file is not valid, or has another thing where ours is to stand.
    """
    servers = _parsed(path, text, table).get(SERVERS, {})
    if isinstance(servers, dict) and SERVER in servers and not has_table(text):
        raise Unwritable(path, f"has a table [{SERVERS}.{SERVER}] that is not ours", table)
    rest = without_table(path, text)
    whole = rest + ("" if not rest or rest.endswith("\n") else "\n") + MARK + table
    try:
        tomllib.loads(whole)
    except tomllib.TOMLDecodeError as error:  # the servers are an inline table, say
        raise Unwritable(path, "has something else where our table is to stand", table) from error
    return whole


def without_table(path: Path, text: str) -> str:
    """A file's text without our table and those below it; comments above the next one are about that, and stay.

    Raises:
        Unwritable: That cannot be done by cutting out lines: nothing but our entry may be missing afterwards.
    """
    if not has_table(text):
        return text
    kept = (_tail(one) if _OUR_SECTION.match(one) else one for one in _SECTION.split(text))
    rest = "".join(kept).replace(MARK, "")
    if _without_server(_parsed(path, text, "")) != _without_server(_parsed(path, rest, "")):
        raise Unwritable(path, "has our table in another form than we wrote", "")
    return rest


def _tail(section: str) -> str:
    found = _NOTHING_BUT_COMMENTS.search(section)
    return found[0] if found else ""


def _parsed(path: Path, text: str, by_hand: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Unwritable(path, "is not valid TOML", by_hand) from error


def _without_server(found: dict[str, Any]) -> dict[str, Any]:
    """All but our entry, and but the object around it when that held nothing else."""
    servers = found.get(SERVERS)
    others = {name: one for name, one in servers.items() if name != SERVER} if isinstance(servers, dict) else servers
    return {name: value for name, value in (found | {SERVERS: others}).items() if name != SERVERS or value}
