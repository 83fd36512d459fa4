"""Attacks on the real broker that are also run against broken builds of it."""

from collections.abc import Awaitable

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.broker.policy import Limits
from claudemesh.listen import Listen
from claudemesh.protocol import messages
from claudemesh.protocol.messages import Message
from tests.attacks.forgeries import escalations
from tests.attacks.wire_member import NotRefused, WireMember, dialled
from tests.attacks.wire_mesh import WireMesh, length_of_log
from tests.attacks.worlds import Outcome

FEW = 5


async def replay_a_hello() -> Outcome:
    """A18: what a member answered to one challenge is said again to another."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as broker:
        mesh = await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
        async with dialled(mesh.url) as link:
            recorded = mesh.owner.hello(await link.challenge())
            await link.send(recorded)
            await link.expect(messages.HelloAck)
        return await _present(mesh, recorded)


async def present_a_stolen_attestation() -> Outcome:
    """A19: the owner's public attestation, and a hello signed by a session of the thief."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as broker:
        mesh = await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
        thief = WireMember("thief")
        thief.follow(*mesh.entries)
        async with dialled(mesh.url) as link:
            challenge = await link.challenge()
            thief.sign = mesh.owner.sign
            hello = thief.hello(challenge, att=mesh.owner.usual_attestation())
            await link.send(hello)
            return await _answer(link.refusal())


async def present_an_expelled_member() -> Outcome:
    """A26: a member that was revoked comes back."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as broker:
        mesh = await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
        eve = await mesh.member("eve")
        await mesh.extend(mesh.owner.entry("revoke", who=eve.id, why="removed"))
        async with dialled(mesh.url) as link:
            await link.send(eve.hello(await link.challenge()))
            return await _answer(link.refusal())


async def found_meshes_without_end() -> Outcome:
    """Nobody has to be known to found one, and each is kept for good."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0), limits=Limits(meshes=FEW))) as broker:
        answers = []
        for number in range(FEW + 1):
            founder = WireMember(f"stranger {number}")
            async with dialled(f"ws://127.0.0.1:{broker.port}/ws") as link:
                challenge = await link.challenge()
                answers.append(await link.append(founder.genesis(challenge.broker)))
    return Outcome(answers[-1] == "", frozenset(answers[FEW:]))


async def grow_rosters_without_end() -> Outcome:
    """Each within its own length; what their owners can say again and again is taken for longest."""
    grants = Limits(entries=3 * FEW, reserved_entries=FEW)
    async with Broker(Settings(listen=Listen("127.0.0.1", 0), limits=grants)) as broker:
        url, answers = f"ws://127.0.0.1:{broker.port}/ws", []
        meshes = [await WireMesh(url).found() for _ in range(2)]
        for mesh in meshes:
            async with mesh.owner.dial(url) as link:
                for _ in range(4 * FEW):
                    entry = mesh.owner.entry("broker", bk=mesh.owner.roster.broker)
                    answers.append(await link.append(entry))
                    if answers[-1] == "":
                        mesh.owner.follow(entry)
    return Outcome(answers.count("") == len(answers), frozenset(answers) - {""})


async def escalate() -> Outcome:
    """A25: a member appends what only its owner may."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as broker:
        mesh = await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
        bob = await mesh.member("bob")
        async with bob.dial(mesh.url) as link:
            answers = [await link.append(entry) for entry in escalations(mesh.owner, bob)]
        return Outcome(await length_of_log(bob, mesh.url) > len(mesh.entries), frozenset(answers))


async def _present(mesh: WireMesh, hello: Message) -> Outcome:
    async with dialled(mesh.url) as link:
        await link.challenge()
        await link.send(hello)
        return await _answer(link.refusal())


async def _answer(refusal: Awaitable[str]) -> Outcome:
    try:
        return Outcome(False, frozenset({await refusal}))
    except NotRefused:
        return Outcome(True, frozenset())
