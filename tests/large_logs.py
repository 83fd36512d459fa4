"""Long logs for a broker's store, quickly made: a broker verifies entries when they come, not when it reads them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.crypto import statements
from claudemesh.protocol.limits import DAY_MS, INVITE_USES_MAX
from claudemesh.protocol.roster import Entry
from claudemesh.types import ZERO_DIGEST, BrokerId, Digest, MeshId, UnixMillis

_UNSIGNED: Final = "0" * 128
_STORED_AT_ONCE: Final = 5_000

Line = tuple[Entry, Digest]
"""An entry and its hash."""
Unchained = tuple[dict[str, Any], tuple[str, ...]]
"""The fields of an entry without its place in the log, and its signers."""


def small(owner: dict[str, str], guest: dict[str, str], broker: BrokerId, at: UnixMillis) -> Iterator[Line]:
    """A founder and a guest, then without end entries that change nothing: the same broker is named again."""

    def bodies() -> Iterator[Unchained]:
        yield _genesis(owner, broker)
        invite = _invite(owner, at)
        yield invite
        yield _admission(invite, guest)
        while True:
            yield {"op": "broker", "by": owner["sign"], "bk": broker}, (owner["sign"],)

    return _chained(bodies(), at)


def admissions(owner: dict[str, str], broker: BrokerId, at: UnixMillis) -> Iterator[Line]:
    """A founder, and then peers without end, of whom nobody leaves: what costs most memory."""

    def bodies() -> Iterator[Unchained]:
        yield _genesis(owner, broker)
        while True:
            invite = _invite(owner, at)
            yield invite
            for _ in range(INVITE_USES_MAX):
                yield _admission(invite, {"sign": _key(), "box": _key(), "user": _key()})

    return _chained(bodies(), at)


async def stored(database: Path, lines: list[Line], at: UnixMillis) -> MeshId:
    """A new database of a broker that holds one mesh with these entries."""
    mesh = MeshId(lines[0][1])
    store = SqliteStore(database)
    await store.open()
    try:
        for start in range(0, len(lines), _STORED_AT_ONCE):
            raws = [msgspec.json.encode(entry) for entry, _ in lines[start : start + _STORED_AT_ONCE]]
            assert await store.append_entries(mesh, start - 1, raws, at, actor=None, served=True)
    finally:
        await store.close()
    return mesh


def _genesis(owner: dict[str, str], broker: BrokerId) -> Unchained:
    body = {"op": "genesis", "by": owner["sign"], "m": owner, "bk": broker, "nonce": os.urandom(16).hex()}
    return body, (owner["sign"],)


def _invite(owner: dict[str, str], at: UnixMillis) -> Unchained:
    key = _key()
    body = {"op": "invite", "by": owner["sign"], "inv": key, "role": "member", "uses": INVITE_USES_MAX}
    return body | {"exp": at + DAY_MS}, (owner["sign"], key)


def _admission(invite: Unchained, peer: dict[str, str]) -> Unchained:
    key = invite[0]["inv"]
    return {"op": "admit", "by": key, "m": peer}, (key, peer["sign"], peer["user"])


def _chained(bodies: Iterator[Unchained], at: UnixMillis) -> Iterator[Line]:
    mesh = head = ZERO_DIGEST
    for seq, (fields, signers) in enumerate(bodies):
        raw = statements.encode({"v": 1, "mesh": mesh, "seq": seq, "prev": head, "at": at, **fields})
        head = statements.digest("roster", raw)
        yield Entry(raw.decode(), dict.fromkeys(signers, _UNSIGNED)), head
        mesh = mesh if seq else head


def _key() -> str:
    return os.urandom(32).hex()
