"""Open links for a load: to the floor server, or to a broker as members of a mesh."""

import asyncio
import os

from claudemesh.protocol.link import Founder, Greeted, Member, Opened, PeerLink
from claudemesh.protocol.messages import Append, Appended
from claudemesh.types import BrokerId
from tests.bench.bench_mesh import BenchMesh, Speaker, found, now_ms
from tests.bench.load import Lane
from tests.bench.raw_link import RawLink, client_frame, dial

_ENTRIES_PER_FRAME = 100
_TIMEOUT_S = 30.0
_CONCURRENT_HANDSHAKES = 64


class _Mailbox:
    """Frames of one link, one at a time, while it is being opened."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()

    def on_frames(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._frames.put_nowait(frame)

    async def next(self) -> bytes:
        async with asyncio.timeout(_TIMEOUT_S):
            return await self._frames.get()


async def found_on(url: str, members: int) -> BenchMesh:
    """Found a mesh of `members` on the broker at `url`, and upload its log."""
    link, protocol, _ = await _dial_founder(url)
    link.close()
    assert protocol.broker is not None
    mesh = found(protocol.broker, members)
    link, protocol, mailbox = await _dial_founder(url)  # again: making a long log takes longer than a handshake may
    chunks = [mesh.entries[:1]]
    chunks += [mesh.entries[at : at + _ENTRIES_PER_FRAME] for at in range(1, len(mesh.entries), _ENTRIES_PER_FRAME)]
    for number, chunk in enumerate(chunks):
        link.write(client_frame(protocol.encode(Append(rid=number, entries=chunk), now_ms())))
        answer = protocol.receive(await mailbox.next(), now_ms())
        if not isinstance(answer, Appended):
            raise RuntimeError(f"the broker did not take the log: {answer}")
    link.close()
    return mesh


async def _dial_founder(url: str) -> tuple[RawLink, PeerLink, _Mailbox]:
    mailbox = _Mailbox()
    link = await dial(url, mailbox.on_frames)
    protocol = PeerLink(url, None, Founder(), os.urandom(16), now_ms())
    protocol.receive(await mailbox.next(), now_ms())
    return link, protocol, mailbox


async def open_member(url: str, mesh: BenchMesh, speaker: Speaker) -> RawLink:
    """Dial as one session of a member; the link is open."""
    mailbox = _Mailbox()
    link = await dial(url, mailbox.on_frames)
    member = Member(
        mesh=mesh.id,
        member=speaker.peer,
        session=speaker.session,
        attestation=speaker.attestation,
        roster_seq=mesh.roster.seq,
        roster_head=mesh.roster.head,
    )
    protocol = PeerLink(url, BrokerId(mesh.broker), member, os.urandom(16), now_ms())
    while True:
        event = protocol.receive(await mailbox.next(), now_ms())
        if isinstance(event, Greeted) and event.reply is not None:
            link.write(client_frame(event.reply))
        elif isinstance(event, Opened):
            return link


async def open_members(url: str, mesh: BenchMesh, speakers: list[Speaker]) -> list[RawLink]:
    """Dial as many speakers, some at a time."""
    gate = asyncio.Semaphore(_CONCURRENT_HANDSHAKES)

    async def one(speaker: Speaker) -> RawLink:
        async with gate:
            return await open_member(url, mesh, speaker)

    return list(await asyncio.gather(*(one(speaker) for speaker in speakers)))


async def member_lanes(url: str, mesh: BenchMesh, speakers: list[Speaker]) -> list[Lane]:
    """One lane per speaker, to a broker."""
    links = await open_members(url, mesh, speakers)
    return [_lane(speaker.peer, link) for speaker, link in zip(speakers, links, strict=True)]


async def floor_lanes(url: str, peers: list[str]) -> list[Lane]:
    """One lane per peer, to the floor server."""
    lanes = []
    for peer in peers:
        mailbox = _Mailbox()
        link = await dial(url, mailbox.on_frames)
        link.write(client_frame(b'{"t":"hello","member":"%b"}' % peer.encode()))
        await mailbox.next()
        lanes.append(_lane(peer, link))
    return lanes


def close(lanes: list[Lane]) -> None:
    """End all links."""
    for lane in lanes:
        lane.link.close()


def _lane(peer: str, link: RawLink) -> Lane:
    lane = Lane(peer, link)
    link.on_frames = lane.on_frames
    return lane
