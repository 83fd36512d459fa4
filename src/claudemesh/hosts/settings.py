"""Settings files of hosts: read strictly, changed as little as JSON allows, and given back as they were.

What `install` finds is kept in our configuration directory before anything is written, and `uninstall` puts it back
byte for byte unless somebody has written to the file since.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from claudemesh.daemon.config_dir import PRIVATE_DIRECTORY, PRIVATE_FILE, read_json, write_private
from claudemesh.hosts.base import SERVER, Place, Unwritable

_INDENT: Final = re.compile(r"\A\s*\{\s*?\n(?P<indent>[ \t]+)")


def load(path: Path, by_hand: str) -> dict[str, Any]:
    """A settings file as an object; empty when there is none.

    Args:
        by_hand: The JSON object that a person would add, or nothing; the file must have room for it.

    Raises:
        Unwritable: It has comments, or a mistake in it, or something else where ours is to stand: rewriting would
            lose that.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Unwritable(path, "cannot be read", by_hand) from error
    if not text.strip():
        return {}
    try:
        found = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise Unwritable(path, "has comments or is not valid JSON", by_hand) from error
    if not isinstance(found, dict):
        raise Unwritable(path, "is not a JSON object", by_hand)
    taken = _taken(found, json.loads(by_hand)) if by_hand else ""
    if taken:
        raise Unwritable(path, f"has something else where ours is to stand, in {taken!r}", by_hand)
    return found


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a settings file in the indentation that it has, in one step."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    found = _INDENT.match(before)
    text = json.dumps(content, indent=found["indent"] if found else 2, ensure_ascii=False) + "\n"
    write(path, text.encode())


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step; it keeps its mode, and a link to it stays one."""
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    temporary = target.with_name(f".{target.name}.claudemesh")
    try:
        temporary.unlink(missing_ok=True)
        # Never through a link, which somebody else's project may have there, nor with a key in it open to others.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                temporary.chmod(mode)
            file.write(content)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def with_server(settings: dict[str, Any], under: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Settings with our server in the object `under`."""
    return settings | {under: dict(settings.get(under, {})) | {SERVER: entry}}


def without_server(settings: dict[str, Any], under: str) -> dict[str, Any]:
    """Settings without our server; the object goes with it when it held nothing else."""
    servers = settings.get(under)
    if not isinstance(servers, dict) or SERVER not in servers:
        return settings
    others = {name: entry for name, entry in servers.items() if name != SERVER}
    kept = {name: value for name, value in settings.items() if name != under}
    return kept | {under: others} if others else kept


class Kept:
    """What stood in a host's files before we set it up."""

    def __init__(self, place: Place, host: str) -> None:
        where = hashlib.sha256(str(place.cwd).encode()).hexdigest()[:16] if place.scope == "project" else "user"
        self._path = place.config.path / "hosts" / f"{host}.{where}.json"
        self._place = place

    @property
    def exists(self) -> bool:
        return self._path.exists()

    @contextmanager
    def changing(self, paths: Iterable[Path]) -> Iterator[None]:
        """Keep files while they are changed; put them back when the change fails half-way."""
        self.keep(paths)
        try:
            yield
        except BaseException:
            self.seal()
            self.restore()
            raise
        self.seal()

    def keep(self, paths: Iterable[Path]) -> None:
        """Remember files before they are changed; durable when this returns."""
        self._place.config.ensure()
        self._path.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        files = [{"path": str(one), "before": _encoded(one), "missing": _missing_directories(one)} for one in paths]
        self._write({"files": files})

    def seal(self) -> None:
        """Remember what stands in them now, after the change."""
        found = read_json(self._path)
        for one in found.get("files", []):
            one["after"] = _hash(Path(one["path"]))
        self._write(found)

    def restore(self) -> list[Path]:
        """Put back every file that nobody has written to since, and forget; returns the other ones."""
        touched = list[Path]()
        for one in read_json(self._path).get("files", []):
            path = Path(one["path"])
            if _encoded(path) == one["before"]:
                continue
            if _hash(path) != one.get("after"):
                touched.append(path)
                continue
            if one["before"] is None:
                path.unlink()
                _remove_empty(one["missing"])
            else:
                write(path, base64.b64decode(one["before"]))
        self._path.unlink(missing_ok=True)
        return touched

    def _write(self, content: dict[str, Any]) -> None:
        write_private(self._path, json.dumps(content).encode())


def _encoded(path: Path) -> str | None:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except FileNotFoundError:
        return None


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _missing_directories(path: Path) -> list[str]:
    return [str(one) for one in path.parents if not one.exists()]


def _remove_empty(directories: Iterable[str]) -> None:
    for one in directories:
        path = Path(one)
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _taken(found: Any, ours: Any) -> str:
    """The first name whose value cannot be extended by ours; an entry of our own is replaced as a whole."""
    for name in ours.keys() & found.keys() - {SERVER}:
        if type(found[name]) is not type(ours[name]):
            return str(name)
        if isinstance(found[name], dict) and (inside := _taken(found[name], ours[name])):
            return f"{name}.{inside}"
    return ""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found
