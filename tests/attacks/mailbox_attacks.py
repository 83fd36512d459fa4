"""Attempts of a member to keep others from writing to somebody who is away, also after it was removed."""

import asyncio
import os

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.broker.policy import Limits
from claudemesh.errors import Refused
from claudemesh.listen import Listen
from claudemesh.protocol import messages
from claudemesh.types import ChannelId
from tests import wire_client as wire
from tests.attacks.worlds import Outcome

ROOM = 16
PATIENCE_S = 3.0


async def fill_the_mailbox_of_another() -> Outcome:
    """Bob is away; whatever Mallory sends is stored, until nothing more is."""
    async with _broker() as broker:
        alice, bob, mallory = await wire.mesh_of(broker.url, 3)
        await _fill(broker, mallory, bob)
        return await _written(broker, alice, bob, 1)


async def fill_a_mailbox_with_posts() -> Outcome:
    """The same in a channel, which brings it into all mailboxes at once."""
    async with _broker() as broker:
        alice, bob, mallory = await wire.mesh_of(broker.url, 3)
        channel = ChannelId(os.urandom(16).hex())
        async with wire.member(broker.url, mallory) as link:
            await link.append(mallory.entry("chan", chan=channel, kind="open"))
            async with wire.member(broker.url, bob) as other:
                await other.subscribe(channel, True)
            await _submit(link, [mallory.post(channel) for _ in range(2 * ROOM)])
        return await _written(broker, alice, bob, 1)


async def leave_a_full_mailbox_behind() -> Outcome:
    """Several did it together, and are removed: what they have sent is refused by whoever gets it, but it waits."""
    async with _broker() as broker:
        alice, bob, *mob = await wire.mesh_of(broker.url, 6)
        for mallory in mob:
            await _fill(broker, mallory, bob)
        async with wire.member(broker.url, alice) as link:
            for mallory in mob:
                entry = alice.entry("revoke", who=mallory.id, why="removed")
                await link.append(entry)
                alice.follow([entry])
        return await _written(broker, alice, bob, ROOM // 2)


def _broker() -> Broker:
    return Broker(Settings(listen=Listen("127.0.0.1", 0), limits=Limits(mailbox_rows=ROOM)))


async def _fill(broker: Broker, sender: wire.Identity, to: wire.Identity) -> None:
    async with wire.member(broker.url, sender) as link:
        await _submit(link, [sender.envelope(to.id) for _ in range(2 * ROOM)])


async def _submit(link: wire.Wire, envelopes: list[messages.Send] | list[messages.Post]) -> frozenset[str]:
    """Returns with which codes the others were refused."""
    codes = set()
    for envelope in envelopes:
        try:
            await link.submit(envelope)
        except Refused as refused:
            codes.add(refused.code)
    return frozenset(codes)


async def _written(broker: Broker, sender: wire.Identity, to: wire.Identity, count: int) -> Outcome:
    """The attack succeeds if the sender cannot write so much within a few seconds, while nobody fetches anything."""
    codes: frozenset[str] = frozenset()
    ends_at = asyncio.get_running_loop().time() + PATIENCE_S
    async with wire.member(broker.url, sender) as link:
        for _ in range(count):
            while codes := await _submit(link, [sender.envelope(to.id)]):
                if asyncio.get_running_loop().time() > ends_at:
                    return Outcome(True, codes)
                await asyncio.sleep(0.1)
    return Outcome(False, codes)
