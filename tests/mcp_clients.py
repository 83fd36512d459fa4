"""Hosts of agents for tests: the official SDK's client, and `claudemesh mcp` as the process that it starts."""

import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.processes import BrokerProcess, Machine, introduce, machine, start_broker

ERAS = ("2025-11-25", "2026-07-28")
MODES = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}
_ID = re.compile(r"^--- message ([0-9a-f]{32})$", re.MULTILINE)


class Pair(NamedTuple):
    """Two machines in one mesh."""

    alice: Machine
    bob: Machine
    broker: BrokerProcess

    def steps(self, message_id: str) -> list[Any]:
        """What Alice knows of a message of hers, beyond its delivery."""
        steps = self.alice.ok("message", message_id)["steps"]
        return [step for step in steps if step["stage"] not in ("queued", "accepted", "delivered")]

    def stages(self, message_id: str) -> list[str]:
        return [step["stage"] for step in self.steps(message_id)]

    def send(self, text: str, *options: str, to: str = "bob.desktop") -> str:
        """Alice, the person, sends; returns the id when it is at Bob's machine."""
        return str(self.alice.ok("send", to, text, "--wait", "delivered", *options)["id"])


@contextmanager
def pair_of_machines(tmp_path: Path) -> Iterator[Pair]:
    """Alice's laptop and Bob's desktop, and the broker between them."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        introduce(broker, alice, bob)
        yield Pair(alice, bob, broker)


class Reply(NamedTuple):
    """What a model is told by a tool."""

    text: str
    is_error: bool

    @property
    def ids(self) -> list[str]:
        """The messages that it shows."""
        return _ID.findall(self.text)


class Agent:
    """A host's session, as its model uses it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: Any) -> Reply:
        """Call a tool; its answer is text and nothing else."""
        result: Any = await self.client.call_tool(tool, arguments)
        assert result.structured_content is None
        (content,) = result.content
        return Reply(content.text, bool(result.is_error))

    async def says(self, tool: str, **arguments: Any) -> str:
        """Call a tool that must succeed."""
        reply = await self.call(tool, **arguments)
        assert not reply.is_error, reply.text
        return reply.text

    async def until(self, tool: str, text: str, **arguments: Any) -> str:
        """Call a tool until its answer holds a text. The deadline only ends a test that would hang."""
        with anyio.fail_after(30):
            while text not in (said := await self.says(tool, **arguments)):  # noqa: ASYNC110 - the server has no event
                await anyio.sleep(0.05)
        return said


@asynccontextmanager
async def agent(
    place: Machine,
    *options: str,
    era: str = ERAS[0],
    on_message: Callable[[Any], Any] | None = None,
    **environment: str,
) -> AsyncIterator[Agent]:
    """A session on a machine, in an era of the protocol, from its begin to its end."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "claudemesh", "mcp", *options],
        env=place.environment | environment,
        cwd=str(place.home),
    )
    async with Client(stdio_client(server), mode=MODES[era], message_handler=on_message) as client:
        assert client.protocol_version == era
        yield Agent(client)
