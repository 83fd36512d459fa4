"""The computers and cables that the fault tests make are real ones, and nothing is left of them."""

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from tests.faults.networks import Cable, Network, inside, namespace, network, require_namespaces

ANSWERS_WITHIN_S = 2.0
SERVER = "import socket; s = socket.create_server(('', 9)); print(flush=True)\nwhile True: s.accept()[0].send(b'!')"


@pytest.fixture
def wire() -> Iterator[tuple[Network, Cable]]:
    """A network, and a computer on it that answers whoever connects."""
    require_namespaces()
    with network() as made, namespace(0) as name:
        cable = made.connect(name, "wire")
        with subprocess.Popen([*inside(name), "python3", "-c", SERVER], stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            yield made, cable
            server.kill()


async def answers(cable: Cable) -> bool:
    """Whether the computer at the other end is reached."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            reader, writer = await asyncio.open_connection(cable.address, 9)
            answer = await reader.read(1)
            writer.close()
    except OSError:
        return False
    return answer == b"!"


async def test_nothing_comes_through_a_cable_that_is_pulled_until_it_is_back(wire: tuple[Network, Cable]) -> None:
    """A cut that cut nothing would make the tests of faults pass."""
    _, cable = wire
    assert await answers(cable)

    cable.pull()
    assert not await answers(cable)

    cable.plug()
    assert await answers(cable)


def test_nothing_is_left(wire: tuple[Network, Cable]) -> None:
    """Neither here nor after a crash: the next test's network has the same number."""
    made, _ = wire
    with network() as other:
        taken = other.bridge
    with network() as again:
        assert (again.bridge, again.bridge != made.bridge) == (taken, True)
