"""WebSocket frames as a server writes them, and the close codes in use (RFC 6455 §5.2, §7.4)."""

from typing import Final, NewType

CloseCode = NewType("CloseCode", int)
NORMAL: Final = CloseCode(1000)
POLICY_VIOLATION: Final = CloseCode(1008)
TOO_BIG: Final = CloseCode(1009)
INTERNAL_ERROR: Final = CloseCode(1011)
SERVICE_RESTART: Final = CloseCode(1012)
TRY_AGAIN_LATER: Final = CloseCode(1013)

PATH: Final = "/ws"

_TEXT: Final = 0x81
_CLOSE: Final = 0x88


def text_frame(payload: bytes) -> bytes:
    """A server's WebSocket text message, as the bytes that a transport writes (RFC 6455 §5.2, unmasked)."""
    length = len(payload)
    if length < 126:
        return b"%c%c%b" % (_TEXT, length, payload)
    if length < 1 << 16:
        return b"%c\x7e%b%b" % (_TEXT, length.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (_TEXT, length.to_bytes(8, "big"), payload)


def close_frame(code: CloseCode) -> bytes:
    """A server's WebSocket close message without a text."""
    return b"%c\x02%b" % (_CLOSE, code.to_bytes(2, "big"))
