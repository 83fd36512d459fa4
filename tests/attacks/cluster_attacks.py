"""Attacks on a broker of two nodes that are also run against broken builds of it."""

import asyncio
import copy
from pathlib import Path

from claudemesh.crypto import identity, statements
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Refused
from claudemesh.protocol import messages
from tests import wire_client as wire
from tests.attacks.worlds import Outcome
from tests.clusters import Cluster, local_cluster

ROUNDS = 15


class Heads:
    """Every signed head that was seen, by the length that it is for."""

    def __init__(self) -> None:
        self._by_seq: dict[int, set[str]] = {}

    def add(self, statement: Statement | None) -> None:
        """Verify one and keep its hash."""
        if statement is not None:
            body = statements.open_statement(statement, "sth")
            self._by_seq.setdefault(body["seq"], set()).add(body["head"])

    @property
    def forked(self) -> bool:
        """Whether two were signed for one length."""
        return any(len(heads) > 1 for heads in self._by_seq.values())


async def append_on_two_nodes_at_once(directory: Path) -> Outcome:
    """N07: two entries on the same head, each to another node, again and again."""
    async with local_cluster(directory) as cluster:
        return await race(cluster)


async def race(cluster: Cluster) -> Outcome:
    """`append_on_two_nodes_at_once` on a cluster that is there."""
    here, there = (await cluster.start()).url, (await cluster.start()).url
    owner = wire.Identity()
    await wire.found(here, owner)
    twin = _twin(owner)
    heads, codes = Heads(), set()
    for _ in range(ROUNDS):
        async with wire.member(here, owner) as first, wire.member(there, twin) as second:
            links = [(first, owner), (second, twin)]
            entries = [one.invite(wire.random_key()) for _, one in links]
            results = await asyncio.gather(
                *(link.append(entry) for (link, _), entry in zip(links, entries, strict=True)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, Refused):
                    codes.add(result.code)
                elif isinstance(result, messages.Appended):
                    heads.add(result.sth)
            for link, _ in links:
                await link.quiet(messages.Log, 0.05)
                for frame in link.frames:
                    if isinstance(frame, messages.Log | messages.HelloAck):
                        heads.add(frame.sth)
        if heads.forked:
            break
    return Outcome(heads.forked, frozenset(codes))


def _twin(owner: wire.Identity) -> wire.Identity:
    """The same peer with a session of its own."""
    twin = wire.Identity()
    twin.sign, twin.user, twin.box = owner.sign, owner.user, owner.box
    twin.session = identity.session_keys(wire.os.urandom(64))
    twin.roster = copy.deepcopy(owner.roster)
    return twin
