"""Worlds for attacks: each test gets one of its own."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.crypto import primitives
from claudemesh.crypto.primitives import SigningKey
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
