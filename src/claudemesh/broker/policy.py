"""Admission: rates, quotas and sizes; pure, the clock is an argument (docs/spec/limits.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Self

from claudemesh.errors import UsageError
from claudemesh.protocol import limits
from claudemesh.protocol.limits import HOUR_MS, MINUTE_MS, SECOND_MS
from claudemesh.types import PeerId, UnixMillis

MAX_BUCKETS: Final = 16_384
SHARE: Final = 3
"""A sender may have so many times as much in a mailbox as is left in it: three quarters where it is the only one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one broker allows. Each can be overridden by its operator; docs/spec/limits.md has a row for each."""

    messages_per_second: int = limits.MESSAGES_PER_SECOND
    messages_burst: int = limits.MESSAGES_BURST
    requests_per_second: int = 20
    requests_burst: int = 200
    appends_per_minute: int = limits.APPENDS_PER_MINUTE_PER_PEER
    roster_entries: int = 100_000
    meshes: int = 10_000
    entries: int = 2_000_000
    reserved_entries: int = 200
    card_interval_ms: int = limits.CARD_INTERVAL_MS
    attestations_per_minute: int = 60
    mailbox_rows: int = limits.MAILBOX_ROWS
    mailbox_bytes: int = limits.MAILBOX_BYTES
    mesh_rows: int = 500_000
    mesh_bytes: int = 4 << 30
    reserved_rows: int = 64
    reserved_bytes: int = 1 << 20
    epoch_interval_ms: int = limits.EPOCH_INTERVAL_MS
    subscriptions_per_peer: int = 1_024
    unacknowledged_pushes: int = limits.MAX_UNACKNOWLEDGED_PUSHES
    unacknowledged_bytes: int = 4 << 20
    pending_messages: int = 8_192
    pending_bytes: int = 64 << 20
    answer_within_ms: int = 200
    buffered_bytes: int = 1 << 20
    buffered_bytes_max: int = 16 << 20
    held_bytes: int = 512 << 20
    links: int = 20_000
    links_per_peer: int = 8
    sessions_per_link: int = 64
    half_open_links: int = 2_048
    half_open_links_per_address: int = 256
    unauthenticated_bytes: int = 16 << 10
    failed_handshakes_per_minute: int = limits.HELLOS_PER_MINUTE_PER_ADDRESS
    claims_per_minute_per_invite: int = limits.CLAIMS_PER_MINUTE_PER_INVITE
    claims_per_minute_per_address: int = limits.CLAIMS_PER_MINUTE_PER_ADDRESS
    meshes_per_hour_per_address: int = 60
    uploads: int = 16
    uploads_per_address: int = 4
    uploads_per_hour_per_address: int = 1_200
    presence_fanout_links: int = 256
    handshake_timeout_ms: int = limits.HANDSHAKE_TIMEOUT_MS
    presence_lease_ms: int = limits.PRESENCE_LEASE_MS
    rejoin_grace_ms: int = limits.REJOIN_GRACE_MS
    head_interval_ms: int = limits.HEAD_INTERVAL_MS
    queue_lifetime_ms: int = limits.QUEUE_LIFETIME_MS
    unserved_lifetime_ms: int = HOUR_MS
    drain_timeout_ms: int = limits.DRAIN_TIMEOUT_MS

    def override(self, assignments: tuple[str, ...]) -> Self:
        """Apply `name=number` texts.

        Raises:
            UsageError: An unknown name, or not a positive number.
        """
        known = {field.name for field in fields(self)}
        changes: dict[str, int] = {}
        for assignment in assignments:
            name, _, number = assignment.partition("=")
            if name not in known:
                raise UsageError("usage", f"no limit is called {name[:40]!r}; they are {', '.join(sorted(known))}")
            if not (number.isascii() and number.isdigit()) or len(number) > 16 or not 0 < int(number) < 1 << 53:
                raise UsageError("usage", f"{name} takes a positive whole number")
            changes[name] = int(number)
        return replace(self, **changes)


class TokenBucket:
    """Admits `burst` at once and `rate` per `period_ms` in the long run."""

    __slots__ = ("_burst", "_per_token_ms", "_tokens", "_updated_at")

    def __init__(self, rate: int, period_ms: int, burst: int, now: UnixMillis) -> None:
        self._per_token_ms = period_ms / rate
        self._burst = burst
        self._tokens = float(burst)
        self._updated_at = now

    def take(self, now: UnixMillis, cost: int = 1) -> int:
        """Take `cost` tokens. Returns 0, or in how many milliseconds they will be there; then none is taken."""
        self._refill(now)
        if self._tokens >= cost:
            self._tokens -= cost
            return 0
        return max(1, int((cost - self._tokens) * self._per_token_ms) + 1)

    def charge(self, now: UnixMillis, cost: int = 1) -> int:
        """Take `cost` tokens whether or not they are there; returns how many milliseconds the debt takes to repay."""
        self._refill(now)
        self._tokens -= cost
        return 0 if self._tokens >= 0 else int(-self._tokens * self._per_token_ms) + 1

    def is_full(self, now: UnixMillis) -> bool:
        """Whether nothing was taken lately: the bucket need not be remembered."""
        self._refill(now)
        return self._tokens >= self._burst

    def wait_ms(self, now: UnixMillis) -> int:
        """In how many milliseconds one token will be there; 0 when there is one."""
        self._refill(now)
        return 0 if self._tokens >= 1 else max(1, int((1 - self._tokens) * self._per_token_ms) + 1)

    def _refill(self, now: UnixMillis) -> None:
        elapsed_ms = now - self._updated_at
        if elapsed_ms > 0:
            self._tokens = min(float(self._burst), self._tokens + elapsed_ms / self._per_token_ms)
        self._updated_at = now


class Senders:
    """What a mailbox holds of each sender, who may have up to `SHARE` times of what is left for the others."""

    __slots__ = ("_held",)

    def __init__(self, held: Mapping[PeerId, tuple[int, int]]) -> None:
        """Rows and bytes by sender."""
        self._held = dict(held)

    def take(self, sender: PeerId, size: int, rows_left: int, bytes_left: int) -> bool:
        """Count one more envelope of a sender; false, and it is not counted, where it has its share."""
        rows, held = self._held.get(sender, (0, 0))
        if rows >= SHARE * rows_left or held + size > SHARE * bytes_left:
            return False
        self._held[sender] = rows + 1, held + size
        return True


class Quota:
    """What one mailbox, or all of a mesh, still has room for, while a batch is put together."""

    __slots__ = ("_bytes", "_reserved", "_rows", "_senders", "_whole")

    def __init__(
        self,
        rows: int,
        size: int,
        whole: "Quota | None" = None,
        reserved: "Quota | None" = None,
        senders: Senders | None = None,
    ) -> None:
        """Room for so much.

        Args:
            whole: What this one is a part of: it has to have room, too.
            reserved: Of this one, what is there also when the whole is full.
            senders: Whose it is so far, where one of them may have its share.
        """
        self._rows = rows
        self._bytes = size
        self._whole = whole
        self._reserved = reserved
        self._senders = senders

    def take(self, size: int, sender: PeerId | None = None, *, beyond_whole: bool = False) -> bool:
        """Take room for one envelope of `size` bytes; false, and nothing is taken, when there is none.

        `sender` is None for what the broker says; `beyond_whole` asks for room in this one alone.
        """
        if self._rows < 1 or self._bytes < size:
            return False
        if self._senders is not None and sender and not self._senders.take(sender, size, self._rows, self._bytes):
            return False
        is_reserved = self._reserved is not None and self._reserved.take(size)
        if self._whole is not None and not beyond_whole and not self._whole.take(size) and not is_reserved:
            return False
        self._rows -= 1
        self._bytes -= size
        return True


class Buckets:
    """One token bucket per key (an address, an invite, a peer), forgotten when it is full again.

    At most `MAX_BUCKETS` are remembered; when that many are in use at once, a new key is refused, so that
    somebody who owns many addresses cannot make the broker forget the others.
    """

    __slots__ = ("_buckets", "_burst", "_period_ms", "_rate")

    def __init__(self, rate: int, period_ms: int, burst: int | None = None) -> None:
        self._rate = rate
        self._period_ms = period_ms
        self._burst = rate if burst is None else burst
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, key: str, now: UnixMillis, cost: int = 1) -> int:
        """As `TokenBucket.take` for `key`."""
        bucket = self._bucket(key, now)
        return self._period_ms if bucket is None else bucket.take(now, cost)

    def charge(self, key: str, now: UnixMillis, cost: int = 1) -> None:
        """As `TokenBucket.charge` for `key`."""
        bucket = self._bucket(key, now)
        if bucket is not None:
            bucket.charge(now, cost)

    def wait_ms(self, key: str, now: UnixMillis) -> int:
        """As `TokenBucket.wait_ms` for `key`, and 0 for a key that took nothing."""
        bucket = self._buckets.get(key)
        return 0 if bucket is None else bucket.wait_ms(now)

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, key: str, now: UnixMillis) -> TokenBucket | None:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._forget(now)
            if len(self._buckets) >= MAX_BUCKETS:
                return None
            bucket = self._buckets[key] = TokenBucket(self._rate, self._period_ms, self._burst, now)
        return bucket

    def _forget(self, now: UnixMillis) -> None:
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_full(now)}


class AddressPolicy:
    """What strangers may do, by network address: count only what went wrong.

    A hundred honest peers behind one address may all reconnect at once after a restart; somebody who
    guesses, relays or probes is stopped after ten failures a minute.
    """

    __slots__ = ("claims_by_address", "claims_by_invite", "failures", "meshes", "uploads")

    def __init__(self, limits: Limits) -> None:
        self.failures = Buckets(limits.failed_handshakes_per_minute, MINUTE_MS)
        self.claims_by_address = Buckets(limits.claims_per_minute_per_address, MINUTE_MS)
        self.claims_by_invite = Buckets(limits.claims_per_minute_per_invite, MINUTE_MS)
        self.meshes = Buckets(limits.meshes_per_hour_per_address, HOUR_MS)
        self.uploads = Buckets(limits.uploads_per_hour_per_address, HOUR_MS)

    def admit_claim(self, address: str, invite: str, now: UnixMillis) -> int:
        """Returns 0, or the milliseconds after which the claim may be repeated."""
        return self.claims_by_address.take(address, now) or self.claims_by_invite.take(invite, now)


def link_bucket(limits: Limits, now: UnixMillis) -> TokenBucket:
    """Messages of one link."""
    return TokenBucket(limits.messages_per_second, SECOND_MS, limits.messages_burst, now)


def request_bucket(limits: Limits, now: UnixMillis) -> TokenBucket:
    """Requests of one link that are not messages: each costs more than it looks."""
    return TokenBucket(limits.requests_per_second, SECOND_MS, limits.requests_burst, now)
