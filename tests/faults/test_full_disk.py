"""A full disk: what cannot be stored is refused before anybody acknowledges it, and it goes on when there is room."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from claudemesh.errors import Refused, Unreachable
from claudemesh.protocol import codec
from claudemesh.protocol.messages import Send
from tests import wire_client as wire
from tests.faults.small_disk import SmallDisk, small_disk
from tests.processes import BrokerProcess, start_broker
from tests.wire_client import Identity, Wire

LARGE_BYTES = 100_000
BEFORE_IT_IS_FULL = 5
MANY = 400
"""More large messages than the disk holds."""


class Full(NamedTuple):
    """A broker whose disk can be filled."""

    disk: SmallDisk
    broker: BrokerProcess


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Full]:
    """Database, key and log of the broker are on the small disk."""
    with small_disk(tmp_path) as disk, start_broker(disk.path) as broker:
        yield Full(disk, broker)


async def fill_while_sending(disk: SmallDisk, link: Wire, author: Identity, to: Identity) -> tuple[list[str], Send]:
    """Fill the disk between two messages and send on until one is refused; what was accepted, and the refused one."""
    accepted: list[str] = []
    for number in range(MANY):
        if number == BEFORE_IT_IS_FULL:
            disk.fill()
        letter = author.envelope(to.id, LARGE_BYTES)
        try:
            await link.submit(letter)
        except Refused as error:
            if error.code != "storage" or number < BEFORE_IT_IS_FULL:
                raise
            return accepted, letter
        accepted.append(letter.id)
        await asyncio.sleep(0.02)  # within the rate that the broker grants
    raise AssertionError("the disk never became full")


async def receive_all(url: str, one: Identity) -> list[str]:
    """Every message that waits for a peer, acknowledged."""
    found: list[str] = []
    async with wire.member(url, one) as link:
        assert link.opened is not None
        for _ in range(link.opened.queued):
            [delivery, *more] = await link.deliveries(1)
            for each in (delivery, *more):
                found.append(codec.decode_send(bytes(each.e)).id)
            await link.acknowledge(delivery, *more)
            if len(found) >= link.opened.queued:
                break
    return found


def readiness(broker: BrokerProcess) -> int:
    """The HTTP status of /ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{broker.port}/ready", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_a_broker_refuses_what_it_cannot_store_and_loses_nothing_that_it_accepted(full: Full) -> None:
    """No `accepted` without a row on the disk; reading goes on; with room again, the same message is accepted."""
    owner, other = await wire.mesh_of(full.broker.url, 2)
    async with wire.member(full.broker.url, owner) as link:
        accepted, refused = await fill_while_sending(full.disk, link, owner, other)
        assert await asyncio.to_thread(readiness, full.broker) == 503

        full.disk.free()
        await link.submit(refused)

    received = await receive_all(full.broker.url, other)
    assert sorted(received) == sorted([*accepted, refused.id])
    assert await asyncio.to_thread(readiness, full.broker) == 200


async def test_a_broker_that_is_killed_on_a_full_disk_has_what_it_accepted(full: Full) -> None:
    """The disk stays full over the kill; the broker serves again once there is room, with every accepted row."""
    owner, other = await wire.mesh_of(full.broker.url, 2)
    async with wire.member(full.broker.url, owner) as link:
        accepted, _ = await fill_while_sending(full.disk, link, owner, other)

    await asyncio.to_thread(full.broker.kill)
    full.disk.free()
    await asyncio.to_thread(full.broker.start)

    assert sorted(await receive_all(full.broker.url, other)) == sorted(accepted)


async def test_a_recipient_can_empty_its_mailbox_when_the_disk_is_full(full: Full) -> None:
    """What is stored is delivered; an acknowledgement that could not be stored is repeated, never lost."""
    owner, other = await wire.mesh_of(full.broker.url, 2)
    async with wire.member(full.broker.url, owner) as link:
        accepted, _ = await fill_while_sending(full.disk, link, owner, other)
        try:
            first = await receive_all(full.broker.url, other)
        except (Refused, Unreachable):
            first = []

        full.disk.free()

    again = await receive_all(full.broker.url, other)
    assert sorted({*first, *again}) == sorted(accepted)


async def test_a_roster_entry_is_refused_and_half_of_it_is_not_there(full: Full) -> None:
    """An append that the disk refuses changes nothing: the same entry is taken when there is room."""
    owner, other = await wire.mesh_of(full.broker.url, 2)
    async with wire.member(full.broker.url, owner) as link:
        await fill_while_sending(full.disk, link, owner, other)
        entry = owner.invite(wire.random_key())
        with pytest.raises(Refused, match="storage"):
            await link.append(entry)
        full.disk.free()
        await link.append(entry)
        owner.roster.apply(entry)

    async with wire.member(full.broker.url, other):
        assert other.roster.head == owner.roster.head
