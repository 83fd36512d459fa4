"""Bodies of the messages that serve channels: names, slots, history (docs/spec/channels.md §6, §7, §9).

A directory and posts from the past are plain JSON, checked by size and by character; they are carried inside signed
messages. Slots and histories are canonical JSON.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import Malformed
from claudemesh.peer.channel_names import MAX_TOPIC_CHARACTERS, is_channel_name
from claudemesh.types import ChannelId, UnixMillis

DIRECTORY: Final = "cm/dir"
SLOT: Final = "cm/slot"
HISTORY: Final = "cm/history"
PAST: Final = "cm/past"

MAX_LISTINGS: Final = 256
MAX_DIRECTORY_BYTES: Final = 128 << 10
MAX_PAST_POSTS: Final = 256
MAX_PAST_BYTES: Final = 256 << 10
"""Sum of the posts in one `cm/past`, unless it holds only one; base64 adds a third."""
MAX_PAST_POST_BYTES: Final = 384 << 10
"""A larger post is not shared: it would not fit into a frame once more."""

T = TypeVar("T")


class Listing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a channel is called, and since when by the teller's clock."""

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}\\Z")]
    name: str
    at: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    topic: Annotated[str, msgspec.Meta(max_length=MAX_TOPIC_CHARACTERS)] = ""


class _Directory(msgspec.Struct, frozen=True):
    c: Annotated[list[Listing], msgspec.Meta(min_length=1, max_length=MAX_LISTINGS)]
    v: int = 1


class PastPost(msgspec.Struct, frozen=True):
    """A post as its author signed it; `a` names an attestation of the same `cm/past`."""

    f: bytes
    s: bytes
    a: str
    at: Annotated[UnixMillis, msgspec.Meta(ge=0, le=2**53 - 1)]
    """When the broker took it, by the word of whoever shares it."""


class Past(msgspec.Struct, frozen=True):
    """Posts of one channel that a member shares from its history."""

    chan: ChannelId
    att: list[Statement]
    p: Annotated[list[PastPost], msgspec.Meta(min_length=1, max_length=MAX_PAST_POSTS)]
    v: int = 1


class Evidenced(NamedTuple):
    """A post as it is kept: with what proves who wrote it."""

    frame: bytes
    signature: bytes
    attestation: str
    statement: Statement
    accepted_at: UnixMillis


_directory_decoder = msgspec.json.Decoder(_Directory)
_past_decoder = msgspec.json.Decoder(Past)


def write_directory(listings: Sequence[Listing]) -> bytes:
    """Body of a `cm/dir` with 1 to `MAX_LISTINGS` channels."""
    return msgspec.json.encode(_Directory(list(listings[:MAX_LISTINGS])))


def read_directory(body: bytes) -> list[Listing]:
    """Read a `cm/dir`, or raise `Malformed`: no name may hide characters or pass for something else."""
    listings = _decode(_directory_decoder, body, MAX_DIRECTORY_BYTES, "directory").c
    for listing in listings:
        if not is_channel_name(listing.name) or not (listing.topic == "" or listing.topic.isprintable()):
            raise Malformed("field_type", "a name of a directory")
    return listings


def write_body(body: Body) -> bytes:
    """Body of a `cm/slot` or `cm/history`."""
    return statements.encode(body)


def read_body(body: bytes) -> Body:
    """Read a `cm/slot` or `cm/history` as far as its form; raises `Malformed`."""
    return statements.decode(body)


def write_pasts(channel: ChannelId, posts: Iterable[Evidenced]) -> list[bytes]:
    """Bodies of as many `cm/past` as the posts need, in their order; too large ones are left out."""
    bodies: list[bytes] = []
    chunk: list[Evidenced] = []
    size = 0
    for post in posts:
        if len(post.frame) > MAX_PAST_POST_BYTES:
            continue
        length = len(post.frame) + 1_024
        if chunk and (size + length > MAX_PAST_BYTES or len(chunk) >= MAX_PAST_POSTS):
            bodies.append(_write_past(channel, chunk))
            chunk, size = [], 0
        chunk.append(post)
        size += length
    return [*bodies, _write_past(channel, chunk)] if chunk else bodies


def read_past(body: bytes) -> Past:
    """Read a `cm/past`, or raise `Malformed`; what it says is then checked post by post."""
    return _decode(_past_decoder, body, len(body), "past")


def _write_past(channel: ChannelId, posts: Sequence[Evidenced]) -> bytes:
    attestations = {post.attestation: post.statement for post in posts}
    return msgspec.json.encode(
        Past(
            channel,
            list(attestations.values()),
            [PastPost(post.frame, post.signature, post.attestation, post.accepted_at) for post in posts],
        )
    )


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, max_bytes: int, what: str) -> T:
    if len(body) > max_bytes:
        raise Malformed("too_large", what)
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed("field_type", what) from error
