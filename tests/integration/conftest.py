"""What several integration tests stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from tests.brokers import serving


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker of the test's own, as anybody would start it."""
    async with serving(tmp_path) as running:
        yield running
