"""Sessions of a peer: opened at once, whatever the broker does."""

import asyncio
from dataclasses import replace
from pathlib import Path

from claudemesh.peer import Peer, Runtime
from tests.teams import PATIENCE_S, TEMPO, Valve, of_type, team


async def test_a_session_opens_although_the_broker_does_not_answer(tmp_path: Path) -> None:
    """A host waits for it, and a request would wait ten minutes; what it writes arrives when the broker listens."""
    patient = Runtime(tempo=replace(TEMPO, request_timeout_ms=600_000))
    async with team(tmp_path, "alice", "bob") as (made, (alice, _)):
        await made.close("bob")
        valve = Valve()
        async with Peer.open(made.home / "bob", connect=valve.connect, runtime=patient) as bob:
            await bob.wait_connected()
            valve.loses_out = of_type("attest")
            async with asyncio.timeout(PATIENCE_S):
                session = await bob.open_session("api")
            lost, valve.loses_out = valve.lost, lambda _frame: False
            sent = await session.send("alice", "hello")
            status = await bob.wait_for(sent.id, "delivered", PATIENCE_S)

            assert lost == 1
            assert [one.peer for one in status.recipients] == [alice.id]
