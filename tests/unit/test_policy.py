"""Rates and quotas; pure, so time is an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.broker.config import Origins, Settings
from claudemesh.broker.policy import MAX_BUCKETS, AddressPolicy, Buckets, Limits, Quota, Senders, TokenBucket
from claudemesh.broker.strangers import Uploads
from claudemesh.crypto.primitives import signing_key
from claudemesh.errors import Refused, UsageError
from claudemesh.listen import Listen
from claudemesh.protocol.link import BrokerLink
from claudemesh.types import PeerId, UnixMillis

T0 = UnixMillis(1_000_000)


def at(ms: int) -> UnixMillis:
    return UnixMillis(T0 + ms)


def test_bucket_admits_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(rate=50, period_ms=1_000, burst=200, now=T0)

    burst = sum(bucket.take(T0) == 0 for _ in range(300))
    second = sum(bucket.take(at(1_000)) == 0 for _ in range(300))

    assert (burst, second) == (200, 50)


def test_refusal_names_the_time_after_which_the_same_is_admitted() -> None:
    bucket = TokenBucket(rate=2, period_ms=1_000, burst=1, now=T0)
    bucket.take(T0)

    wait_ms = bucket.take(T0)

    assert 0 < wait_ms <= 501
    assert bucket.take(at(wait_ms)) == 0


def test_refusal_takes_nothing() -> None:
    """Whoever asks too often is not punished beyond the rate."""
    bucket = TokenBucket(rate=1, period_ms=1_000, burst=1, now=T0)
    for _ in range(1_000):
        bucket.take(T0)

    assert bucket.take(at(1_001)) == 0


def test_clock_that_goes_back_gives_no_tokens() -> None:
    bucket = TokenBucket(rate=1, period_ms=1_000, burst=1, now=T0)
    bucket.take(T0)

    assert bucket.take(at(-500_000)) > 0


def test_debt_is_repaid_at_the_rate() -> None:
    bucket = TokenBucket(rate=10, period_ms=1_000, burst=5, now=T0)

    waits = [bucket.charge(T0) for _ in range(7)]

    assert waits[:5] == [0] * 5
    assert waits[6] == pytest.approx(200, abs=2)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 5)), max_size=200))
def test_no_sequence_of_requests_gets_more_than_burst_and_rate(requests: list[tuple[int, int]]) -> None:
    """The bound that everything else relies on."""
    bucket = TokenBucket(rate=10, period_ms=1_000, burst=20, now=T0)
    elapsed, granted = 0, 0

    for pause_ms, cost in requests:
        elapsed += pause_ms
        if bucket.take(at(elapsed), cost) == 0:
            granted += cost

    assert granted <= 20 + elapsed * 10 / 1_000 + 1e-6


def test_keys_do_not_share_a_bucket_and_full_ones_are_forgotten() -> None:
    buckets = Buckets(rate=1, period_ms=1_000)
    for number in range(MAX_BUCKETS):
        buckets.take(str(number), T0)

    crowded = buckets.take("late", T0)
    later = buckets.take("late", at(2_000))

    assert crowded > 0
    assert later == 0
    assert len(buckets) == 1


def test_address_without_failures_waits_for_nothing_and_is_not_remembered() -> None:
    policy = AddressPolicy(Limits())

    assert policy.failures.wait_ms("192.0.2.1", T0) == 0
    assert len(policy.failures) == 0


def test_eleventh_failure_of_an_address_makes_it_wait() -> None:
    policy = AddressPolicy(Limits())
    for _ in range(10):
        assert policy.failures.wait_ms("192.0.2.1", T0) == 0
        policy.failures.charge("192.0.2.1", T0)

    assert policy.failures.wait_ms("192.0.2.1", T0) > 0
    assert policy.failures.wait_ms("192.0.2.2", T0) == 0


def test_limits_are_overridden_by_name() -> None:
    assert Limits().override(("mailbox_rows=7", "links=9")).mailbox_rows == 7


@pytest.mark.parametrize("number", ["", "=", "=-1", "=0", "=\u00b2", "=" + "9" * 5_000])
def test_nonsense_is_no_override(number: str) -> None:
    with pytest.raises(UsageError):
        Limits().override((f"mailbox_rows{number}",))
    with pytest.raises(UsageError):
        Limits().override(("x=1",))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("mesh.example", "wss://mesh.example/ws"),
        ("MESH.example", "wss://mesh.example/ws"),
        ("other.example:8443", "wss://other.example:8443/ws"),
        ("localhost:7900", "ws://localhost:7900/ws"),
        ("evil.example", "wss://mesh.example/ws"),
        ("", "wss://mesh.example/ws"),
        (None, "wss://mesh.example/ws"),
    ],
)
def test_origin_is_one_of_the_brokers_own(host: str | None, origin: str) -> None:
    """A host that the client made up is never signed."""
    settings = Settings(listen=Listen("127.0.0.1", 0), origins=("wss://mesh.example/ws", "wss://other.example:8443/ws"))

    assert Origins(settings, 7900).of_request(host, unix=False) == origin


@pytest.mark.parametrize(("text", "host", "port"), [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0)])
def test_listen_address_is_read(text: str, host: str, port: int) -> None:
    assert Listen.parse(text) == Listen(host, port)
    assert Listen.parse(text).is_loopback


def test_quota_takes_what_there_is_room_for_in_rows_and_in_bytes() -> None:
    """What does not fit takes nothing, so that something smaller still does."""
    quota = Quota(rows=3, size=1_000)

    taken = [quota.take(size) for size in (600, 500, 400, 1, 0)]
    few = Quota(rows=1, size=1_000)

    assert taken == [True, False, True, False, True]
    assert [few.take(1), few.take(1)] == [True, False]


def test_no_sender_takes_more_of_a_mailbox_than_three_times_what_it_leaves() -> None:
    """Who has nothing in it yet gets in as long as there is room, however many have taken their share."""
    senders = Senders({})
    quota = Quota(100, 1_000_000, senders=senders)

    shares = []
    for sender in map(PeerId, "abc"):
        taken = 0
        while quota.take(1, sender):
            taken += 1
        shares.append(taken)

    assert shares == [75, 19, 5]
    assert quota.take(1, PeerId("d"))
    assert not quota.take(1, PeerId("e"))


def test_a_share_is_one_of_bytes_too_and_the_broker_has_none() -> None:
    """What the store has counted is where it begins."""
    quota = Quota(100, 1_000, senders=Senders({PeerId("a"): (1, 2_900)}))

    assert [quota.take(size, PeerId("a")) for size in (101, 100, 1)] == [False, True, False]
    assert quota.take(900)


def test_what_is_reserved_of_a_part_is_there_when_the_whole_is_full() -> None:
    """And it is of that part's beginning: whoever takes more at once has used it up."""
    full = Quota(rows=0, size=0)
    few, many = (Quota(10, 1_000, full, Quota(2 - waiting, 100)) for waiting in (0, 2))
    whole = Quota(rows=2, size=1_000)
    first = Quota(10, 1_000, whole, Quota(1, 1_000))

    assert [few.take(60), few.take(60), few.take(40), few.take(1)] == [True, False, True, False]
    assert not many.take(1)
    assert [first.take(1), first.take(1), first.take(1)] == [True, True, False]


def test_uploads_of_one_address_leave_room_for_others() -> None:
    """On the Unix socket everybody has the same address, and whoever may connect there decides."""
    uploads = Uploads(3, 2)
    links = [BrokerLink(signing_key(bytes(32)), "ws://broker/ws", bytes(32), UnixMillis(0)) for _ in range(6)]
    uploads.enter(links[0], "one", is_unix=False)
    uploads.enter(links[1], "one", is_unix=False)

    with pytest.raises(Refused, match="too many uploads"):
        uploads.enter(links[2], "one", is_unix=False)
    uploads.enter(links[3], "other", is_unix=False)
    with pytest.raises(Refused, match="too many uploads"):
        uploads.enter(links[4], "third", is_unix=False)
    for link in links[:4]:
        uploads.leave(link)
    for link in links[:3]:
        uploads.enter(link, "unix", is_unix=True)
