"""Identifiers and quantities that every layer shares (docs/glossary.md).

Keys, identifiers and hashes travel as lowercase hex, so that they are the same text on the wire,
in SQL, in Python and on a terminal.
"""

from typing import Literal, NewType

MeshId = NewType("MeshId", str)
"""Hash of a mesh's genesis entry, 64 hex digits."""
PeerId = NewType("PeerId", str)
"""Ed25519 public key of one client in one mesh, 64 hex digits."""
UserId = NewType("UserId", str)
"""Ed25519 public key of a user, 64 hex digits."""
SessionId = NewType("SessionId", str)
"""Ed25519 public key of one session, 64 hex digits."""
BrokerId = NewType("BrokerId", str)
"""Ed25519 public key of a broker, 64 hex digits."""
InviteId = NewType("InviteId", str)
"""Ed25519 public key of an invite, 64 hex digits."""
BoxId = NewType("BoxId", str)
"""X25519 public key, 64 hex digits."""
MessageId = NewType("MessageId", str)
"""16 random bytes that name one message for its whole life, 32 hex digits."""
ChannelId = NewType("ChannelId", str)
"""16 random bytes that name a channel or group, 32 hex digits."""
Digest = NewType("Digest", str)
"""SHA-256 under a domain label, 64 hex digits."""
UnixMillis = NewType("UnixMillis", int)
"""Milliseconds since 1970-01-01T00:00:00Z."""

Priority = Literal["now", "next", "low"]
Role = Literal["member", "admin", "owner"]
Intent = Literal["request", "inform", "ack"]

ZERO_DIGEST = Digest("0" * 64)
