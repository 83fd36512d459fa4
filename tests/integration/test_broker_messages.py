"""Envelopes through a real broker: real sockets, real SQLite, raw clients."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker, Listen, Settings
from claudemesh.protocol import codec
from tests import wire_client as wire


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    settings = Settings(
        listen=Listen("127.0.0.1", 0),
        unix=tmp_path / "b.sock",
        database=tmp_path / "broker.db",
        log_file=tmp_path / "broker.log",
    )
    async with Broker(settings) as running:
        yield running


async def test_envelope_reaches_its_recipient_as_its_sender_wrote_it(broker: Broker) -> None:
    """What is pushed is the sender's own frame, byte for byte."""
    owner, other = await wire.mesh_of(broker.url, 2)
    letter = owner.envelope(other.id)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        row = await sending.submit(letter)
        [delivery] = await receiving.deliveries(1)
        await receiving.acknowledge(delivery)

    assert row["to"] == other.id
    assert bytes(delivery.e) == codec.encode_message(letter)
