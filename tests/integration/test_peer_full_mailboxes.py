"""A recipient whose mailbox is full, and everybody else (docs/spec/delivery.md §3)."""

from dataclasses import replace
from pathlib import Path

import pytest

from claudemesh.broker import commits
from claudemesh.peer import Peer, Runtime, posting
from tests import teams
from tests.teams import eventually, knows_channel, take, team

COUNT = 20


@pytest.mark.parametrize("to", ["bob", "#ops"])
async def test_what_a_full_mailbox_refuses_holds_up_nothing_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """More than may be in flight waits for one recipient or channel: the rest goes out, and it too in the end."""
    monkeypatch.setattr(posting, "IN_FLIGHT", 4)
    monkeypatch.setattr(teams, "RUNTIME", Runtime(tempo=replace(teams.TEMPO, in_flight=4)))
    monkeypatch.setattr(commits, "MAILBOX_RETRY_MS", 3_000)
    async with team(tmp_path, "alice", "bob", "carol", limits={"mailbox_rows": 8}) as (made, (alice, bob, carol)):
        await alice.create_channel("#ops", "private")
        await alice.add_to_channel("#ops", "bob")
        await knows_channel(bob, "#ops")
        await made.close("bob")
        sent = [await alice.send(to, f"number {number}") for number in range(COUNT)]
        await eventually(lambda: made.broker._core.metrics.refused.get("mailbox_full", 0) >= 4, "a full mailbox")
        is_early = not await is_waiting_no_more(alice, sent[-1].id)

        await alice.send("carol", "direct")
        await alice.send("#general", "to all")
        heard = {one.text for one in await take(carol, 2)}
        is_still_full = not await is_waiting_no_more(alice, sent[-1].id)
        bob = await made.open("bob")
        arrived: set[str] = set()
        while len(arrived) < COUNT:
            arrived |= {one.text for one in await take(bob, 1)} - {"to all"}

    assert heard == {"direct", "to all"}
    assert is_early
    assert is_still_full
    assert arrived == {f"number {number}" for number in range(COUNT)}


async def is_waiting_no_more(peer: Peer, message: str) -> bool:
    """Whether the broker has taken a message."""
    status = await peer.status(message)
    return status.recipients[0].stage != "queued"
