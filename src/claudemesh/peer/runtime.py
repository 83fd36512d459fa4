"""What a peer takes from its surroundings: clock, randomness, and how long it waits for things."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from claudemesh.protocol import limits
from claudemesh.types import UnixMillis


def wall_clock() -> UnixMillis:
    """This machine's clock."""
    return UnixMillis(time.time_ns() // 1_000_000)


def passed_ms() -> int:
    """Milliseconds that have passed since some moment, however the clock is set."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Tempo:
    """Intervals of a peer; the defaults are those of docs/spec/limits.md, tests shorten them."""

    request_timeout_ms: int = 30_000
    reconnect_min_ms: int = limits.RECONNECT_MIN_MS
    reconnect_max_ms: int = limits.RECONNECT_MAX_MS
    removed_retry_ms: int = limits.REMOVED_RETRY_MS
    withheld_window_ms: int = limits.WITHHELD_WINDOW_MS
    receipt_delay_ms: int = 25
    disk_retry_ms: int = 2_000
    """What the journal could not store is tried again after this, as long as the disk is full."""
    housekeeping_ms: int = 60_000
    audit_ms: int = limits.CHECKPOINT_INTERVAL_MS
    session_lifetime_ms: int = limits.ATTESTATION_DEFAULT_MS
    in_flight: int = 256


@dataclass(frozen=True, slots=True)
class Runtime:
    """Injected once where a peer is composed."""

    now: Callable[[], UnixMillis] = wall_clock
    uptime: Callable[[], int] = passed_ms
    """Milliseconds; never set."""
    entropy: Callable[[int], bytes] = os.urandom
    jitter: Callable[[], float] = random.random
    """From 0 to 1; spreads reconnects of many peers, no secret depends on it."""
    tempo: Tempo = field(default_factory=Tempo)
