"""Which link gets an envelope, and how much one link may hold."""

from claudemesh.broker.links import Link, Window
from claudemesh.broker.policy import Limits, link_bucket, request_bucket
from claudemesh.broker.pushing import push_frames
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.store.base import LinkId
from claudemesh.protocol import codec, limits, messages
from claudemesh.transport import CloseCode
from claudemesh.types import MeshId, PeerId, SessionId, UnixMillis

NOW = UnixMillis(0)
GRANTS = Limits()


class Sink:
    """An outlet that keeps what is written to it."""

    def __init__(self, unread: int = 0) -> None:
        self.frames: list[bytes] = []
        self.unread = unread
        self.code: CloseCode | None = None

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def buffered(self) -> int:
        return self.unread

    def close(self, code: CloseCode) -> None:
        self.code = code

    def vouch(self) -> None:
        raise AssertionError("an open link is vouched for")


def link(number: int, *, rows: int = 4, unread: int = 0) -> Link:
    return Link(
        id=LinkId(number),
        mesh=MeshId("m"),
        peer=PeerId("p"),
        session=SessionId(str(number)),
        outlet=Sink(unread),
        window=Window(rows, 1_000),
        messages=link_bucket(GRANTS, NOW),
        requests=request_bucket(GRANTS, NOW),
        heard_at=NOW,
    )


def drained(*links: Link) -> Mailbox:
    mailbox = Mailbox(MeshId("m"), PeerId("p"))
    for one in links:
        mailbox.attach(one)
    mailbox.backlog = False
    return mailbox


def test_mailbox_without_a_link_has_no_direct_route() -> None:
    assert drained().direct(100) is None


def test_newest_open_link_is_the_route() -> None:
    old, new = link(1), link(2)
    mailbox = drained(old, new)

    first = mailbox.direct(100)
    new.closed = True
    second = mailbox.direct(100)

    assert (first, second) == (new, old)


def test_backlog_bars_the_direct_route() -> None:
    """Otherwise a new envelope would overtake those that wait."""
    mailbox = drained(link(1))
    mailbox.wait()

    assert mailbox.direct(100) is None


def test_rows_of_other_nodes_bar_nothing() -> None:
    """Their senders have no link here: what waits behind them would only wait longer."""
    one = link(1)
    mailbox = drained(one)
    mailbox.wait_elsewhere()

    assert mailbox.has_rows()
    assert mailbox.direct(100) is one


def test_link_with_a_full_window_or_an_unread_buffer_gets_nothing_directly() -> None:
    full, slow = link(1, rows=1), link(2, unread=101)
    full.window.reserve(10)

    assert drained(full).direct(100) is None
    assert drained(slow).direct(100) is None


def test_end_of_a_link_leaves_a_backlog() -> None:
    one = link(1)
    mailbox = drained(one)
    mailbox.detach(one)

    assert mailbox.backlog


def test_envelope_whose_commit_is_under_way_keeps_a_mailbox_from_being_drained() -> None:
    mailbox = Mailbox(MeshId("m"), PeerId("p"))
    mailbox.uncommitted = 1

    assert not mailbox.found_no_more(mailbox.waiting, mailbox.waiting_elsewhere)
    assert mailbox.backlog


def test_row_stored_since_a_lease_began_keeps_a_mailbox_from_being_drained() -> None:
    mailbox = Mailbox(MeshId("m"), PeerId("p"))
    counts = mailbox.waiting, mailbox.waiting_elsewhere
    mailbox.wait()

    assert not mailbox.found_no_more(*counts)
    assert mailbox.backlog
    assert mailbox.found_no_more(mailbox.waiting, mailbox.waiting_elsewhere)


def test_row_of_another_node_is_looked_for_without_holding_up_those_of_this_one() -> None:
    """The lease has seen everything from here; it has to be repeated for what came from there."""
    mailbox = Mailbox(MeshId("m"), PeerId("p"))
    counts = mailbox.waiting, mailbox.waiting_elsewhere
    mailbox.wait_elsewhere()

    assert not mailbox.found_no_more(*counts)
    assert not mailbox.backlog


def test_window_counts_reservations_pushes_and_acknowledgements() -> None:
    window = Window(max_rows=3, max_bytes=1_000)
    window.reserve(10)
    window.fill(1, 10)
    window.reserve(10)
    window.add(2, 10)
    full = window.room()
    known = window.acknowledge([1, 2, 3, 1])
    window.cancel(10)

    assert full == 0
    assert known == [1, 2]
    assert (window.room(), len(window)) == (3, 0)


def test_window_is_full_by_bytes_too() -> None:
    window = Window(max_rows=100, max_bytes=1_000)
    window.add(1, 1_000)

    assert window.room() == 0


def test_attestation_is_unseen_once_per_link() -> None:
    one = link(1)

    assert one.unseen({"a", "b"}) == {"a", "b"}
    assert one.unseen({"b", "c"}) == {"c"}


def test_closing_is_said_once() -> None:
    one = link(1)
    one.close(messages.Closing(code="replaced"))
    one.close(messages.Closing(code="revoked"))

    assert isinstance(one.outlet, Sink)
    assert len(one.outlet.frames) == 1


def test_pushes_are_split_by_size_and_the_attestations_go_first() -> None:
    half = b'{"q":1,"at":1,"st":{"b":"%b","k":"","s":""}}' % (b"x" * (limits.MAX_PUSH_BYTES // 2))
    attestation = b'{"b":"","k":"","s":""}'

    frames = list(push_frames([half, half, half], [attestation]))

    pushes = [codec.decode_broker_message(frame) for frame in frames]
    assert all(isinstance(push, messages.Push) for push in pushes)
    assert [(len(push.d), len(push.atts)) for push in pushes if isinstance(push, messages.Push)] == [
        (1, 1),
        (1, 0),
        (1, 0),
    ]
