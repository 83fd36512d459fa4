"""What nobody can make the real broker do with messages, nonsense and sizes, at the level of the wire."""

import pytest

from claudemesh.crypto import statements
from claudemesh.protocol import audit_rows, limits, messages
from claudemesh.protocol.messages import Hello
from tests.attacks.refusals import ends_with, word
from tests.attacks.wire_member import dialled
from tests.attacks.wire_mesh import WireMesh, length_of_log

CHANNEL = "11" * 16


# Messages


async def test_a15_broker_takes_no_envelope_in_another_name(mesh: WireMesh) -> None:
    """A15, A19: the outer sender is the link's; its attestation too."""
    bob, mallory = await mesh.member("bob"), await mesh.member("mallory")
    letter = mallory.write(bob.id, bob.box.public, "x")
    owners = statements.statement_digest(mesh.owner.usual_attestation(), "att")

    async with mesh.owner.dial(mesh.url), mallory.dial(mesh.url) as link:
        refusals = []
        for outer in ({"from": mesh.owner.id}, {"mesh": "ab" * 32}, {"att": owners}, {"att": "00" * 32}):
            await link.send(letter.altered(**outer).frame)
            refusals.append(await link.refusal())

    assert [refusal.split()[0] for refusal in refusals] == ["invalid"] * 4


async def test_a14_a_peer_acknowledges_only_its_own_mail(mesh: WireMesh) -> None:
    """A14: the numbers of another mailbox in an ack or a cursor delete nothing."""
    bob, mallory = await mesh.member("bob"), await mesh.member("mallory")
    async with mesh.owner.dial(mesh.url) as link:
        await link.send(mesh.owner.write(bob.id, bob.box.public, "for bob").frame)
        await link.expect(messages.Accepted)

    async with mallory.dial(mesh.url) as link:
        await link.send(messages.Ack(q=list(range(1, 100))))
        await link.send(messages.ListPeers(rid=link.next_rid()))
        await link.expect(messages.Peers)
    async with dialled(mesh.url) as link:
        await link.send(
            Hello(
                h=mallory.hello(challenge := await link.challenge()).h,
                att=mallory.usual_attestation(),
                cursor=list(range(1, 100)),
            )
        )
        await link.expect(messages.HelloAck)
    async with bob.dial(mesh.url) as link:
        push = await link.expect(messages.Push)

    assert challenge.broker == mesh.owner.roster.broker
    assert bob.read(bytes(push.d[0].e), push.atts[0]).body == b"for bob"


async def test_a09_broker_takes_no_card_in_another_name(mesh: WireMesh) -> None:
    """A09: nor an older one; expected `invalid`."""
    mallory = await mesh.member("mallory")
    forged = mesh.owner.card(box=mallory.box)

    async with mallory.dial(mesh.url) as link:
        await link.send(messages.PutCard(rid=link.next_rid(), st=forged))
        other = await link.refusal()
        await link.send(messages.PutCard(rid=link.next_rid(), st=mallory.card(number=5)))
        await link.expect(messages.Ok)
        await link.send(messages.PutCard(rid=link.next_rid(), st=mallory.card(number=4)))
        older = await link.refusal()

    assert [other.split()[0], older.split()[0]] == ["invalid", "invalid"]


async def test_a45_the_audit_log_is_the_chain_that_receipts_name(mesh: WireMesh) -> None:
    """A45: control on the real broker: rows link up, receipts are in them, the checkpoint signs their end."""
    bob = await mesh.member("bob")
    receipts = {}
    async with mesh.owner.dial(mesh.url) as link:
        for number in range(3):
            await link.send(mesh.owner.write(bob.id, bob.box.public, str(number)).frame)
            accepted = await link.expect(messages.Accepted)
            for row in statements.open_statement(accepted.st, "accept")["r"]:
                receipts[row["n"]] = row["h"]
        await link.send(messages.GetAudit(rid=link.next_rid(), n=0))
        audit = await link.expect(messages.Audit)

    hashes = [audit_rows.row_hash(row.encode()) for row in audit.rows]
    bodies = [statements.decode(row.encode()) for row in audit.rows]
    assert [body["prev_hash"] for body in bodies] == ["0" * 64, *hashes[:-1]]
    assert {n: hashes[n] for n in receipts} == receipts
    assert len(receipts) == 3
    assert audit.cp is not None
    checkpoint = statements.open_statement(audit.cp, "audit-cp", mesh.owner.roster.broker)
    assert (checkpoint["n"], checkpoint["head"]) == (len(hashes), hashes[-1])


# Nonsense

GARBAGE = [
    "",
    "{}",
    "[]",
    "null",
    "{",
    '"hello"',
    '{"t":"hello"}',
    '{"t":"hello","h":1,"att":2}',
    '{"t":"unknown"}',
    '{"t":1}',
    '{"t":"append","rid":1,"entries":[]}',
    '{"t":"append","rid":1,"entries":[{"b":"{}","s":{}}]}',
    '{"t":"append","rid":1,"entries":[{"b":"\\ud800","s":{"\\ud800":"x"}}]}',
    '{"t":"append","rid":-1,"entries":[{"b":"x","s":{}}]}',
    '{"t":"sync","rid":1,"seq":99999999999999999999}',
    '{"t":"ping"}',
    '{"t":"claim","c":{"b":"{}","k":"00","s":"00"}}',
    '{"t":"claim","c":{"b":"' + "\\u0000" * 100 + '","k":"' + "00" * 32 + '","s":"' + "00" * 64 + '"}}',
    "[" * 4_000,
    '{"t":' + "[" * 3_000,
    "\x00" * 100,
]


@pytest.mark.parametrize("frame", GARBAGE)
async def test_a31_nonsense_before_the_handshake_ends_only_its_link(mesh: WireMesh, frame: str) -> None:
    """A31: closed with a code, or refused; the broker serves the next one."""
    async with dialled(mesh.url) as link:
        await link.challenge()
        await link.send(frame)
        await link.refusal()

    assert await length_of_log(mesh.owner, mesh.url) == len(mesh.entries)


@pytest.mark.parametrize("frame", GARBAGE)
async def test_a31_nonsense_of_a_member_ends_only_its_link(mesh: WireMesh, frame: str) -> None:
    """A31: it is refused or closes that link; others are served."""
    async with mesh.owner.dial(mesh.url) as link:
        await link.send(frame)
        await link.send(messages.ListPeers(rid=1))
        while not isinstance(await link.receive(), messages.Peers | None):
            pass

    assert await length_of_log(mesh.owner, mesh.url) == len(mesh.entries)


async def test_a31_odd_but_well_formed_requests_crash_nothing(mesh: WireMesh) -> None:
    """A31: keys of the right length that are no keys, numbers at the edge, sessions of nobody."""
    odd, edge = "zz" * 32, 2**53 - 1
    requests: list[messages.Message] = [
        messages.Sync(rid=1, seq=edge),
        messages.GetAudit(rid=2, n=edge),
        messages.GetCards(rid=3, members=[odd, "é" * 64, "\x00" * 64]),
        messages.Ack(q=[0, edge]),
        messages.End(sess=odd),
        messages.SetStatus(sess=odd, status="busy"),
        messages.ListPeers(rid=4),
    ]
    async with mesh.owner.dial(mesh.url) as link:
        for request in requests:
            await link.send(request)
        await link.expect(messages.Peers)
        odd_letter = mesh.owner.write(mesh.owner.id, mesh.owner.box.public, "x")
        for outer in ({"to": odd}, {"kid": odd}, {"nbf": edge}, {"exp": 0}, {"rs": edge}, {"ct": ""}):
            await link.send(odd_letter.altered(**outer).frame)
        await link.send(messages.ListPeers(rid=5))
        await link.expect(messages.Peers)


@pytest.mark.parametrize("ending", ["\n", "g", "A"])
async def test_a31_an_id_is_hexadecimal_to_its_last_character(mesh: WireMesh, ending: str) -> None:
    """A31: the broker states what became of an id in canonical JSON, for ever again where that cannot be."""
    bob = await mesh.member("bob")
    letter = mesh.owner.write(bob.id, bob.box.public, "x")

    async with mesh.owner.dial(mesh.url) as link:
        await link.send(letter.altered(id="0" * 31 + ending).frame)
        while not isinstance(answer := await link.receive(), messages.Closing | messages.Refused | messages.Accepted):
            pass

    assert isinstance(answer, messages.Closing)
    assert answer.code == "bad_frame"


async def test_a31_a_hostile_envelope_cannot_break_the_frame_it_is_pushed_in(mesh: WireMesh) -> None:
    """A31: the broker hands envelopes on as they are; one that is no flat object must not reach others."""
    bob = await mesh.member("bob")
    letter = mesh.owner.write(bob.id, bob.box.public, "x").frame.decode()
    nested = letter[:-1] + ',"junk":{"t":"closing","code":"moved"}}'
    twice = letter[:-1] + ',"to":"' + mesh.owner.id + '"}'
    spaced = "  " + letter + "\n"

    async with bob.dial(mesh.url) as bobs:
        for frame in (nested, twice, spaced):
            async with mesh.owner.dial(mesh.url) as link:
                await link.send(frame)
                await link.send(messages.ListPeers(rid=1))
                while (answer := await link.receive()) is not None and not isinstance(answer, messages.Peers):
                    pass
        await bobs.send(messages.ListPeers(rid=9))
        while not isinstance(pushed := await bobs.receive(), messages.Peers):
            assert isinstance(pushed, messages.Push | messages.Sys | messages.Pong | messages.Log)


# Sizes


@pytest.mark.parametrize("size", [limits.MAX_UNAUTHENTICATED_FRAME_BYTES + 1, 1 << 20, 16 << 20])
async def test_n08_a_large_frame_before_the_handshake_ends_the_link(mesh: WireMesh, size: int) -> None:
    """N08: expected `too_large`, or no answer at all."""
    async with dialled(mesh.url) as link:
        await link.challenge()
        try:
            await link.send('{"t":"ping","x":"' + "x" * size + '"}')
            code = word(await link.refusal())
        except ConnectionError:
            code = ""

    assert code in ("", "too_large")


async def test_n08_a_large_frame_of_a_member_ends_the_link(mesh: WireMesh) -> None:
    """N08: 16 MiB; expected `too_large`, or no answer at all."""
    async with mesh.owner.dial(mesh.url) as link:
        try:
            await link.send('{"t":"ping","x":"' + "x" * (16 << 20) + '"}')
            code = await ends_with(link)
        except ConnectionError:
            code = ""

    assert code in ("", "too_large")
