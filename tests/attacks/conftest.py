"""Worlds for attacks: each test gets one of its own."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.crypto import primitives
from claudemesh.crypto.primitives import SigningKey
from claudemesh.listen import Listen
from tests.attacks.wire_mesh import WireMesh
from tests.attacks.worlds import World, world


@pytest.fixture
def recovery() -> SigningKey:
    """The key behind the recovery words of the world's owner."""
    return primitives.signing_key(os.urandom(32))


@pytest.fixture
async def theatre(tmp_path: Path, recovery: SigningKey) -> AsyncIterator[World]:
    """A hostile broker, and a mesh in which nobody but its owner is yet."""
    async with world(tmp_path, recovery.public) as made:
        yield made


@pytest.fixture
async def mesh() -> AsyncIterator[WireMesh]:
    """A mesh at a real broker of its own, which keeps everything in memory."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as broker:
        yield await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
