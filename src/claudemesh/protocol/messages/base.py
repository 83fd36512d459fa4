"""What frames are made of: their common base, and the types of their fields."""

from typing import Annotated, Literal

import msgspec

from claudemesh.types import UnixMillis

Hex16 = Annotated[str, msgspec.Meta(min_length=32, max_length=32, pattern="^[0-9a-f]+\\Z")]
Key = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
"""A key that is looked up, never used as it is: its length bounds it, the look-up checks it."""
Label = Annotated[str, msgspec.Meta(max_length=128, pattern="^[^\\x00]*\\Z")]
"""A text for people; without U+0000, which PostgreSQL stores in no text."""
Slot = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}[A-Za-z0-9_-]{64}\\Z")]
"""First 8 hex digits of the box key that it is for, and 48 bytes in base64url."""
RequestId = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Moment = Annotated[UnixMillis, msgspec.Meta(ge=0, le=2**53 - 1)]
Status = Literal["idle", "busy", "away"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    """Base of everything that is a frame of its own."""
