"""Fields of the statements that a broker signs inside `accepted`, `sys` and `push` (docs/spec/wire.md §5.2, §6.7)."""

from typing import Any

ACCEPT_FIELDS: dict[str, Any] = {"v": (1,), "mesh": "hex32", "at": "int", "r": list}
ACCEPT_ROW_FIELDS: dict[str, Any] = {"id": "hex16", "to": "hex32", "n": "int", "h": "hex32"}
ACCEPT_POST_ROW_FIELDS: dict[str, Any] = {"id": "hex16", "chan": "hex16", "n": "int", "h": "hex32"}
SYS_FIELDS: dict[str, Any] = {
    "v": (1,),
    "mesh": "hex32",
    "at": "int",
    "ev": ("peer_joined", "peer_left", "expired", "revoked", "mailbox_full"),
    "who": "hex32",
}
SYS_OPTIONAL: dict[str, Any] = {"id": "hex16"}
