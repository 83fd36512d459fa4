"""Frames that are spliced from bytes at hand: deliveries, statements, pages of entries (docs/spec/wire.md §5.3).

A sender's envelope goes to its recipient as the bytes that the sender wrote; so do entries and attestations.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from claudemesh.broker.links import AcceptedPostRow, AcceptedRow
from claudemesh.broker.store.base import Kind
from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import Malformed
from claudemesh.protocol import limits
from claudemesh.types import MeshId, UnixMillis

MAX_PAGE_BYTES: Final = 512 << 10
_encode: Final = msgspec.json.Encoder().encode


class _AcceptBody(msgspec.Struct, frozen=True, gc=False):
    """Body of an `accepted` statement, its fields in canonical order."""

    at: int
    mesh: str
    r: list[AcceptedRow | AcceptedPostRow]
    v: int = 1


def delivery(q: int, accepted_at: UnixMillis, kind: Kind, payload: bytes, slot: str = "") -> bytes:
    """One mailbox row as it stands in a `push`."""
    if kind in ("dm", "post"):
        return b'{"q":%d,"at":%d,"e":%b}' % (q, accepted_at, payload)
    if kind == "epoch":
        return b'{"q":%d,"at":%d,"ep":%b,"slot":"%b"}' % (q, accepted_at, payload, slot.encode())
    return b'{"q":%d,"at":%d,"st":%b}' % (q, accepted_at, payload)


def push_frames(deliveries: Sequence[bytes], attestations: Iterable[bytes]) -> Iterator[bytes]:
    """`push` frames of at most `MAX_PUSH_BYTES`, except that a larger envelope goes alone.

    The attestations go with the first one.
    """
    atts = b",".join(attestations)
    suffix = b'],"atts":[%b]}' % atts if atts else b"]}"
    start, size = 0, 0
    for index, one in enumerate(deliveries):
        if size and size + len(one) > limits.MAX_PUSH_BYTES:
            yield b'{"t":"push","d":[%b%b' % (b",".join(deliveries[start:index]), suffix)
            start, size, suffix = index, 0, b"]}"
        size += len(one)
    yield b'{"t":"push","d":[%b%b' % (b",".join(deliveries[start:]), suffix)


def accepted_frame(mesh: MeshId, rows: list[AcceptedRow | AcceptedPostRow], key: SigningKey, now: UnixMillis) -> bytes:
    """Sign one `accepted` of at most `MAX_IDS_PER_FRAME` rows, all of one mesh and one sender."""
    raw = _encode(_AcceptBody(now, mesh, rows))
    signature = statements.sign_bytes(key, "accept", raw)
    text = raw.replace(b'"', b'\\"')
    return b'{"t":"accepted","st":{"b":"%b","k":"%b","s":"%b"}}' % (text, key.public.encode(), signature.encode())


def log_frame(seq: int, entries: Sequence[bytes], rid: int | None, more: bool, sth: bytes | None) -> bytes:
    """One `log` page."""
    tail = b"" if rid is None else b',"rid":%d' % rid
    tail += b',"more":true' if more else b""
    tail += b"" if sth is None else b',"sth":%b' % sth
    return b'{"t":"log","seq":%d,"entries":[%b]%b}' % (seq, b",".join(entries), tail)


def check_flat(frame: bytes) -> None:
    """Refuse an envelope that could do harm where it is spliced in, whatever fields it has besides the known ones.

    Fields that nobody knows are not decoded: without this, bytes that are not UTF-8 or an object nested so
    deep that it decodes here but not inside a `push` would end the recipient's link again and again.
    """
    if not frame.startswith(b"{") or frame.find(b"{", 1) >= 0 or b"[" in frame or not frame.isascii():
        raise Malformed("bad_frame", "an envelope is one flat ASCII object")
