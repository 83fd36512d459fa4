"""channel_post_us, channel_open_us, rotate_1000_make_ms, rotate_1000_kb: cryptography of channels, without a link."""

import statistics
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeVar

from claudemesh.crypto.primitives import signing_key
from claudemesh.protocol import epochs
from claudemesh.protocol.codec import decode_envelope, encode_message
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.messages import PutEpoch
from claudemesh.protocol.roster import EVERYONE, GENERAL, sign_entry
from tests.bench.report import Figure
from tests.channel_members import Member, MemoryBroker, team

MEMBERS = 1_000
POSTS = 2_000
ROTATIONS = 9
TEXT = "x" * 300

T = TypeVar("T")


def measure() -> dict[str, Figure]:
    """Post, open and rotate in a mesh of 1,000 members."""
    broker, (alice, bob) = team("alice", "bob")
    _admit(broker, alice, MEMBERS - 2)
    alice.sync()
    bob.sync()
    rotation_ms, kilobytes = _rotations(alice)
    alice.rotate()
    bob.drain()
    frames, post_us = _posts(alice)
    open_us = _opens(bob, frames)
    note = f"in a mesh of {MEMBERS:,}, text of {len(TEXT)} bytes, median of {POSTS:,}"
    return {
        "channel_post_us": Figure(round(post_us, 1), "µs", note=f"choose the epoch, seal, encode; {note}"),
        "channel_open_us": Figure(round(open_us, 1), "µs", note=f"decode, every check, replay window; {note}"),
        "rotate_1000_make_ms": Figure(
            round(rotation_ms, 1), "ms", note=f"make, seal to each, encode; without upload; median of {ROTATIONS}"
        ),
        "rotate_1000_kb": Figure(round(kilobytes, 1), "kB", note="the frame that is uploaded"),
    }


def _admit(broker: MemoryBroker, owner: Member, count: int) -> None:
    """Fill the roster through one link; the newcomers need no replica of their own."""
    random = Random(1)
    invite = signing_key(random.randbytes(32))
    expires_at = owner.clock.now + DAY_MS
    owner.append("invite", invite, inv=invite.public, role="member", uses=count, exp=expires_at)
    for number in range(count):
        newcomer = Member(f"m{number}", broker, random)
        body = broker.roster.next_body("admit", owner.clock.now, by=invite.public, m=newcomer.keys)
        broker.append(sign_entry(body, invite, newcomer.sign, newcomer.user))


def _rotations(author: Member) -> tuple[float, float]:
    boxes = {member.id: member.box for member in author.roster.members.values()}
    assert author.head is not None
    times, size = [], 0
    for _ in range(ROTATIONS):
        entropy = author.random.randbytes(64)
        started = time.perf_counter()
        made = epochs.rotate(
            author.roster, author.head, EVERYONE, author.id, author.session, boxes, author.clock.now, entropy
        )
        frame = encode_message(
            PutEpoch(rid=1, st=made.statement, att=author.attestation.digest, slots=list(made.slots))
        )
        times.append(time.perf_counter() - started)
        size = len(frame)
    return statistics.median(times) * 1_000, size / 1_000


def _posts(author: Member) -> tuple[list[bytes], float]:
    def post() -> bytes:
        epoch = author.usable(GENERAL)
        assert epoch is not None
        return encode_message(author.seal(GENERAL, TEXT, epoch))

    frames, times = zip(*(_timed(post) for _ in range(POSTS)), strict=True)
    return list(frames), statistics.median(times)


def _opens(reader: Member, frames: list[bytes]) -> float:
    def take() -> Iterator[float]:
        for frame in frames:
            yield _timed(lambda frame=frame: reader.take_post(decode_envelope(frame)))[1]  # type: ignore[misc]

    return statistics.median(take())


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = action()
    return result, (time.perf_counter() - started) * 1_000_000


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:18} {figure.value:8} {figure.unit:3} {figure.note}")
