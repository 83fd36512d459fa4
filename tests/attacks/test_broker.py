"""What nobody can make the real broker do about membership and handshakes, at the level of the wire."""

import asyncio
from functools import partial

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.crypto import statements
from claudemesh.listen import Listen
from claudemesh.protocol import messages
from claudemesh.protocol.handshake import ChallengeBody, make_claim
from claudemesh.protocol.limits import DAY_MS, HOUR_MS, MINUTE_MS
from claudemesh.protocol.messages import Hello
from claudemesh.protocol.roster import Entry
from tests.attacks.clock import PATIENCE_S
from tests.attacks.forgeries import escalations, escalations_of_an_admin
from tests.attacks.refusals import ends_with, hello_refusal, word
from tests.attacks.wire_member import WireMember, dialled
from tests.attacks.wire_mesh import WireMesh, length_of_log, refusal_of_append

CHANNEL = "11" * 16


# Membership


async def test_a01_broker_refuses_an_admission_without_the_invites_signature(mesh: WireMesh) -> None:
    """A01: expected `sig_missing` and `bad_sig`, whoever uploads it."""
    bob, ghost = await mesh.member("bob"), WireMember("ghost")
    link = await mesh.invite()
    ghost.follow(*mesh.entries)
    complete = ghost.admission(link.invite_key())
    key = link.invite_key().public
    unsigned = Entry(complete.b, {signer: one for signer, one in complete.s.items() if signer != key})
    garbage = Entry(complete.b, complete.s | {key: "00" * 64})

    refusals = [await refusal_of_append(bob, mesh.url, entry) for entry in (unsigned, garbage)]

    assert [refusal.split()[:2] for refusal in refusals] == [["invalid", "sig_missing"], ["invalid", "bad_sig"]]
    assert await length_of_log(bob, mesh.url) == len(mesh.entries)


async def test_a02_broker_refuses_an_admission_of_another_mesh(mesh: WireMesh) -> None:
    """A02: expected `cas`: it follows another head."""
    other = await WireMesh(mesh.url).found()
    stranger, link = WireMember("stranger"), await other.invite()
    stranger.follow(*other.entries)

    refusal = await refusal_of_append(mesh.owner, mesh.url, stranger.admission(link.invite_key()))

    assert refusal.split()[0] == "cas"
    assert await length_of_log(mesh.owner, mesh.url) == len(mesh.entries)


async def test_a03_a_link_is_not_used_more_often_than_it_says(mesh: WireMesh) -> None:
    """A03: expected `denied` for the claimant and for a member that helps it."""
    link = await mesh.invite(uses=1)
    first = await mesh.join(WireMember("first"), link)
    extra = WireMember("extra")

    second = await mesh.join(extra, link)
    helped = await refusal_of_append(mesh.owner, mesh.url, extra.admission(link.invite_key()))

    assert first == ("open", "")
    assert second == ("exhausted", "invalid denied invite_exhausted")
    assert helped == "invalid denied invite_exhausted"


async def test_a03_concurrent_claimants_do_not_share_one_use(mesh: WireMesh) -> None:
    """A03: of ten that race, one is admitted."""
    link = await mesh.invite(uses=1)

    answers = await asyncio.gather(*(mesh.join(WireMember(f"racer {number}"), link) for number in range(10)))

    assert [refusal for _, refusal in answers].count("") == 1
    assert await length_of_log(mesh.owner, mesh.url) == len(mesh.entries)


async def test_a04_expired_and_revoked_links_admit_nobody(mesh: WireMesh) -> None:
    """A04: expected `denied`; and a joiner that dates itself back is refused by the broker's clock."""
    expiring, revoked = await mesh.invite(ttl_ms=50), await mesh.invite()
    await mesh.extend(mesh.owner.entry("uninvite", inv=revoked.invite_key().public))
    await asyncio.sleep(0.06)

    late = await mesh.join(WireMember("late"), expiring)
    back_dated = await mesh.join(WireMember("back dated"), expiring, at=mesh.clock() - 6 * MINUTE_MS)
    after_all = await mesh.join(WireMember("after all"), revoked)

    assert late == ("expired", "invalid denied invite_expired")
    assert back_dated[1].startswith("invalid time_back")
    assert after_all == ("revoked", "invalid denied invite_revoked")


@pytest.mark.parametrize("role", ["member", "admin"])
async def test_a25_nobody_escalates(mesh: WireMesh, role: str) -> None:
    """A25, A46: expected `denied`, or `sig_missing` in the owner's name; nothing is appended."""
    bob = await mesh.member("bob")
    if role == "admin":
        await mesh.extend(mesh.owner.entry("role", who=bob.id, role="admin"))
        bob.follow(mesh.entries[-1])
    forged = (escalations_of_an_admin if role == "admin" else escalations)(mesh.owner, bob)

    async with bob.dial(mesh.url) as link:
        refusals = [await link.append(entry) for entry in forged]

    assert {tuple(refusal.split()[:2]) for refusal in refusals} <= {("invalid", "denied"), ("invalid", "sig_missing")}
    assert await length_of_log(bob, mesh.url) == len(mesh.entries)


async def test_a26_a_revoked_member_is_out_at_once(mesh: WireMesh) -> None:
    """A26: its link ends, a new one is refused, mail to it is refused, and its invites are dead."""
    eve = await mesh.member("eve")
    await mesh.extend(mesh.owner.entry("role", who=eve.id, role="admin"))
    eve.follow(mesh.entries[-1])
    link = eve.new_link(mesh.url)

    async with eve.dial(mesh.url) as wire:
        assert await wire.append(eve.invite(link, uses=5)) == ""
        await mesh.catch_up()
        await mesh.extend(mesh.owner.entry("revoke", who=eve.id, why="removed"))
        ended = await ends_with(wire)
    again = await hello_refusal(mesh, eve.hello)
    _, invited = await mesh.join(WireMember("friend"), link)
    async with mesh.owner.dial(mesh.url) as wire:
        await wire.send(mesh.owner.write(eve.id, eve.box.public, "hello").frame)
        mail = await wire.refusal()

    assert ended == "revoked"
    assert again.split()[0] == "revoked"
    assert invited == "invalid denied invite_revoked"
    assert mail.split()[0] == "unknown_peer"


async def test_a41_broker_refuses_a_date_far_ahead(mesh: WireMesh) -> None:
    """A41: expected `future_entry`."""
    bob = await mesh.member("bob")
    entry = bob.entry("chan", at=mesh.clock() + 365 * DAY_MS, chan=CHANNEL, kind="group")

    refusal = await refusal_of_append(bob, mesh.url, entry)

    assert refusal.startswith("invalid future_entry")


async def test_a42_device_links_are_capped(mesh: WireMesh) -> None:
    """A42: expected `denied`."""
    bob = await mesh.member("bob")
    link = bob.new_link(mesh.url)

    refusal = await refusal_of_append(bob, mesh.url, bob.invite(link, uses=6, user=bob.user.public))

    assert refusal == "invalid denied uses"


# Handshake


async def test_a18_a_hello_is_of_no_use_on_another_link(mesh: WireMesh) -> None:
    """A18: expected `hello_binding`, for the replay on a new link and for a relay from another broker."""
    async with dialled(mesh.url) as link:
        recorded = mesh.owner.hello(await link.challenge())
        await link.send(recorded)
        await link.expect(messages.HelloAck)
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as other:
        async with dialled(f"ws://127.0.0.1:{other.port}/ws") as link:
            foreign = mesh.owner.hello(await link.challenge())

    replayed = await hello_refusal(mesh, lambda challenge: recorded)
    relayed = await hello_refusal(mesh, lambda challenge: foreign)
    elsewhere = await hello_refusal(
        mesh, lambda challenge: mesh.owner.hello(challenge._replace(origin="wss://elsewhere/ws"))
    )

    assert [word(code) for code in (replayed, relayed, elsewhere)] == ["hello_binding"] * 3


async def test_a18_a_claim_is_of_no_use_on_another_link(mesh: WireMesh) -> None:
    """A18: expected `hello_binding`."""
    invite = await mesh.invite()
    async with dialled(mesh.url) as link:
        claim = make_claim(await link.challenge(), invite.invite_key(), invite.mesh_prefix, mesh.clock())
    async with dialled(mesh.url) as link:
        await link.challenge()
        await link.send(messages.Claim(c=claim))
        refusal = await link.refusal()

    assert word(refusal) == "hello_binding"


async def test_a18_broker_signs_no_origin_that_a_client_makes_up(mesh: WireMesh) -> None:
    """A18: a relay that sends its own name as Host gets a challenge for the broker's."""
    port = mesh.url.rsplit(":", 1)[1].split("/")[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: phishing.example\r\nOrigin: https://phishing.example\r\nUpgrade: websocket\r\n"
        b"X-Forwarded-Host: phishing.example\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = b""
    while b"challenge" not in answer and (chunk := await asyncio.wait_for(reader.read(4_096), PATIENCE_S)):
        answer += chunk
    writer.close()

    assert b"phishing" not in answer
    assert b"challenge" not in answer or mesh.url.encode() in answer or b"ws://127.0.0.1" in answer


async def test_a18_a_challenge_is_answered_once(mesh: WireMesh) -> None:
    """A18: a second hello on one link ends it; expected `handshake_state`."""
    async with dialled(mesh.url) as link:
        challenge = await link.challenge()
        await link.send(mesh.owner.hello(challenge))
        await link.expect(messages.HelloAck)
        await link.send(mesh.owner.hello(challenge))

        assert await ends_with(link) == "handshake_state"


async def test_a19_an_attestation_without_the_sessions_secret_opens_no_link(mesh: WireMesh) -> None:
    """A19: signed by another key, by another session of the thief, and with the peer's name changed."""
    thief = await mesh.member("thief")
    stolen = mesh.owner.usual_attestation()

    def with_stolen_attestation(challenge: ChallengeBody) -> Hello:
        return thief.hello(challenge, att=stolen)

    def in_the_owners_name(challenge: ChallengeBody) -> Hello:
        honest = thief.hello(challenge)
        body = statements.decode(honest.h.b.encode()) | {"member": mesh.owner.id}
        return Hello(h=statements.sign_statement(body, "hello", thief.session.sign), att=honest.att)

    def self_attested(challenge: ChallengeBody) -> Hello:
        forged = mesh.owner.forged_attestation(thief.sign, thief.session)
        return thief.hello(challenge, att=forged)

    codes = [
        word(await hello_refusal(mesh, make)) for make in (with_stolen_attestation, in_the_owners_name, self_attested)
    ]

    assert codes == ["stmt", "hello", "att"]


async def test_a17_a_session_of_another_mesh_opens_no_link(mesh: WireMesh) -> None:
    """A17: expected `unknown_peer`, and `hello` when header and attestation differ."""
    other = await WireMesh(mesh.url).found()
    stranger = other.owner

    def into_this_mesh(challenge: ChallengeBody) -> Hello:
        honest = stranger.hello(challenge)
        body = statements.decode(honest.h.b.encode()) | {"mesh": mesh.owner.mesh}
        return Hello(h=statements.sign_statement(body, "hello", stranger.session.sign), att=honest.att)

    def attested_for_it(challenge: ChallengeBody) -> Hello:
        honest = into_this_mesh(challenge)
        return Hello(h=honest.h, att=stranger.attestation(mesh=mesh.owner.mesh))

    codes = [word(await hello_refusal(mesh, make)) for make in (into_this_mesh, attested_for_it)]

    assert codes == ["hello", "unknown_peer"]


async def test_a29_an_expired_attestation_opens_no_link(mesh: WireMesh) -> None:
    """A29: expected `hello`; and one that lasts too long `att_ttl`."""
    now = mesh.clock()
    ended = mesh.owner.attestation(issued_at=now - 2 * HOUR_MS, lifetime_ms=HOUR_MS)
    endless = mesh.owner.attestation(lifetime_ms=365 * DAY_MS)

    codes = [
        word(await hello_refusal(mesh, partial(mesh.owner.hello, att=attestation))) for attestation in (ended, endless)
    ]

    assert codes == ["hello", "att_ttl"]
