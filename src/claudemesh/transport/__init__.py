"""Byte pipes between peers and brokers; with the listener, the only import of the WebSocket library.

A frame of the protocol is one WebSocket text message. Nothing here knows what a frame means. The server's
half is in `claudemesh.transport.listener`, apart from this, so that a peer does not load it.
"""

from claudemesh.transport.client import Pipe, connect
from claudemesh.transport.frames import (
    INTERNAL_ERROR,
    NORMAL,
    PATH,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TOO_BIG,
    TRY_AGAIN_LATER,
    CloseCode,
)
from claudemesh.transport.loop import run

__all__ = [
    "INTERNAL_ERROR",
    "NORMAL",
    "PATH",
    "POLICY_VIOLATION",
    "SERVICE_RESTART",
    "TOO_BIG",
    "TRY_AGAIN_LATER",
    "CloseCode",
    "Pipe",
    "connect",
    "run",
]
