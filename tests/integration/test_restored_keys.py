"""A device that goes on with the keys of an older backup (docs/spec/backup.md §3)."""

import asyncio
from pathlib import Path

import pytest

from tests.brokers import serving
from tests.faults.peers import enrol, next_message, opened


@pytest.mark.parametrize("replaced_by", ["rekey", "rotation"])
async def test_keys_from_before_a_newer_card_make_a_newer_one_still(tmp_path: Path, replaced_by: str) -> None:
    """The secret of the published card is lost with the newer keys; what was written to it is sealed anew."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        config = homes.bob / "config.json"
        backup = config.read_bytes()
        async with opened(homes.bob) as bob:
            await bob.wait_connected()
            if replaced_by == "rekey":
                await bob.rekey()
            else:
                bob._parts.keyring.rotate(bob._parts.runtime.now())
                await bob._parts.cards.publish(await bob._parts.uplink.line())
        async with opened(homes.alice) as alice:
            await alice.wait_connected()
            sent = await alice.send("bob", "to the key that is lost")
            await alice.wait_for(sent.id, "accepted", timeout_s=20)
        config.write_bytes(backup)

        async with opened(homes.bob) as bob, opened(homes.alice):
            async with asyncio.timeout(20):
                await bob.wait_connected()
                arrived = await next_message(bob)
            noticed = (await bob.describe_mesh()).foreign_card

    assert noticed == 2
    assert arrived.text == "to the key that is lost"
