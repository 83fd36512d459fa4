"""A session in a file: it can do what its capabilities say, nothing else, and its file holds no key of its peer."""

import asyncio
import json
import stat
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from claudemesh import Peer, Submitted
from claudemesh.errors import AddressError, EnvelopeRefused, LocalError, Refused, Unreachable, UsageError
from claudemesh.peer.keystore import Keystore, write_private
from claudemesh.peer.restricted import RestrictedSession
from claudemesh.peer.session_bundle import Bundle, read_bundle, write_bundle
from claudemesh.protocol.limits import DAY_MS, HOUR_MS
from tests.brokers import serving
from tests.faults.peers import Homes, enrol, next_message, opened, shifted


class Site(NamedTuple):
    """Alice, who hands sessions out, and Bob."""

    homes: Homes
    file: Path


async def handed(site: Site, *capabilities: str, expires_in_ms: int = DAY_MS) -> str:
    """Alice hands a session out and goes offline; returns its key."""
    async with opened(site.homes.alice) as alice:
        made, content = await alice.hand_out_session(capabilities, label="ci", expires_in_ms=expires_in_ms)
    write_private(site.file, content)
    return made.session


async def accepted(peer: Peer, sent: Submitted) -> None:
    """Wait until the broker has a message."""
    await peer.wait_for(sent.id, "accepted")


async def refused(peer: Peer) -> set[str]:
    """Wait until a peer has refused something; the codes."""
    async with asyncio.timeout(30):
        while not (rows := await peer.quarantine()):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.05)
    return {row.code for row in rows}


async def site_of(tmp_path: Path, broker_url: str) -> Site:
    homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker_url)
    jobs = tmp_path / "job"
    jobs.mkdir(mode=0o700)
    return Site(homes, jobs / "session.json")


async def test_a_session_writes_in_the_name_of_its_peer_while_that_is_offline(tmp_path: Path) -> None:
    """Again and again from one file, by names, with each message taken once and none missing."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        session = await handed(site, "dm")

        for text in ("first run", "second run"):
            async with Peer.open_session_bundle(site.file) as job:
                await job.send("bob.box", text)

        async with opened(site.homes.bob) as bob:
            got = []
            async for message in bob.messages():
                got.append((message.text, message.sender, message.sender_session))
                if len(got) == 2:
                    break
            assert got == [("first run", "alice.box", session), ("second run", "alice.box", session)]
            assert await bob.quarantine() == []


async def test_an_answer_reaches_the_peer_that_handed_the_session_out(tmp_path: Path) -> None:
    """The session is not there to receive it, and has no mailbox."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "dm")
        async with opened(site.homes.bob) as bob, Peer.open_session_bundle(site.file) as job:
            await job.send("bob", "may I deploy?", intent="request")
            await accepted(bob, await bob.reply(await next_message(bob), "yes"))

        async with opened(site.homes.alice) as alice:
            assert (await next_message(alice)).text == "yes"


async def test_the_file_holds_no_secret_of_its_peer(tmp_path: Path) -> None:
    """Neither as text nor as bytes: not the peer's key, not its box keys, not the user's."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "chan", "dm")
        async with Peer.open_session_bundle(site.file) as job:
            await job.send("#general", "leave traces")
        content = site.file.read_bytes()

        with Keystore.open(site.homes.alice) as keystore:
            keys, identity = keystore.meshes[0], keystore.config.identity
        assert identity is not None
        secrets = [keys.peer.sign_sk, identity.user_sk or "", *(box.box_sk for box in keys.peer.boxes)]
        assert all(secrets)
        for secret in secrets:
            assert secret.encode() not in content
            assert bytes.fromhex(secret) not in content
        assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
        assert "sk" not in repr(read_bundle(content))


@pytest.mark.parametrize(("has", "to"), [("chan", "bob"), ("dm", "#general")])
async def test_a_session_refuses_what_it_may_not_do(tmp_path: Path, has: str, to: str) -> None:
    """Before anything leaves the machine, with a code of its own."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, has)

        async with Peer.open_session_bundle(site.file) as job:
            assert job.capabilities == (has,)
            with pytest.raises(EnvelopeRefused) as caught:
                await job.send(to, "no")

        assert caught.value.code == "cap"


async def test_a_session_that_does_not_check_itself_is_refused_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker can see it refuses; what only the recipient can see, the recipient does."""
    monkeypatch.setattr(RestrictedSession, "_require", lambda *_: None)
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "chan")
        async with Peer.open_session_bundle(site.file) as job:
            with pytest.raises(Refused, match="cap dm"):
                await job.send("bob", "not allowed")
        await handed(site, "dm")
        async with Peer.open_session_bundle(site.file) as job:
            with pytest.raises(Refused, match="cap chan"):
                await job.send("#general", "not allowed")
            monkeypatch.setattr("claudemesh.peer.contents.TEXT", "cm/profile")
            await job.send("bob", json.dumps({"name": "root", "device": "box", "sessions": []}))
            monkeypatch.undo()

        async with opened(site.homes.bob) as bob:
            assert await refused(bob) == {"cap"}
            assert await bob.inbox() == []
            assert "alice.box" in {view.address for view in await bob.peers()}


async def test_a_session_posts_in_a_channel_under_an_epoch_of_its_own(tmp_path: Path) -> None:
    """It knows nothing of what was said before, and makes one epoch for all of its runs."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        async with opened(site.homes.alice) as alice:
            await accepted(alice, await alice.send("#general", "before"))
        await handed(site, "chan")

        for text in ("built", "deployed"):
            async with Peer.open_session_bundle(site.file) as job:
                await job.send("#general", text)

        assert len(read_bundle(site.file.read_bytes()).epochs) == 1
        async with opened(site.homes.bob) as bob:
            got = []
            async for message in bob.messages():
                got.append((message.text, message.channel))
                if len(got) == 3:
                    break
            assert got == [("before", "#general"), ("built", "#general"), ("deployed", "#general")]


async def test_a_session_that_was_ended_is_refused(tmp_path: Path) -> None:
    """By its peer's next card, long before its time."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        session = await handed(site, "dm")
        async with opened(site.homes.alice) as alice:
            ended = await alice.end_handed_out("ci")
            assert (ended.session, bool(ended.ended_at)) == (session, True)
            with pytest.raises(AddressError, match="there is none"):
                await alice.end_handed_out("ci")
            await accepted(alice, await alice.send("bob", "a card came with this"))
        async with opened(site.homes.bob) as bob:
            assert (await next_message(bob)).text == "a card came with this"

            async with Peer.open_session_bundle(site.file) as job:
                await job.send("bob", "from the thief of the file")

            assert await refused(bob) == {"session_dead"}


async def test_a_session_dies_with_its_peer(tmp_path: Path) -> None:
    """The broker does not let it in, and says why."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        async with opened(site.homes.bob) as bob:
            _, content = await bob.hand_out_session(["dm"])
        write_private(site.file, content)
        async with opened(site.homes.alice) as alice:
            await alice.revoke("bob")

        with pytest.raises(Refused, match="revoked"):
            async with Peer.open_session_bundle(site.file):
                pass


async def test_the_link_of_a_session_does_not_take_its_peers_mail(tmp_path: Path) -> None:
    """It could not open it, and may not delete it."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "dm")
        async with Peer.open_session_bundle(site.file) as job, opened(site.homes.bob) as bob:
            sent = await bob.send("alice", "for alice herself")
            await bob.wait_for(sent.id, "accepted")
            await job.send("bob", "still here")

            async with opened(site.homes.alice) as alice:
                assert (await next_message(alice)).text == "for alice herself"


async def test_a_session_has_its_time(tmp_path: Path) -> None:
    """An hour is an hour; 7 days are the most that a peer signs."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "dm", expires_in_ms=HOUR_MS)

        with pytest.raises(LocalError) as caught:
            async with Peer.open_session_bundle(site.file, runtime=shifted(61)):
                pass

        assert caught.value.code == "session_expired"
        async with opened(site.homes.alice) as alice:
            for wrong in (0, 8 * DAY_MS):
                with pytest.raises(UsageError):
                    await alice.hand_out_session(["dm"], expires_in_ms=wrong)
            for wrong_caps in ([], ["state_w"], ["dm", "everything"]):
                with pytest.raises(UsageError):
                    await alice.hand_out_session(wrong_caps)


async def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    """Wider capabilities, another peer, another key, an open mode, damage: nothing is dialled."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "dm")
        bundle = read_bundle(site.file.read_bytes())
        statement = bundle.attestation
        wider = msgspec.structs.replace(statement, b=statement.b.replace('["dm"]', '["chan","dm"]'))
        tampered: list[Bundle] = [
            msgspec.structs.replace(bundle, attestation=wider),
            msgspec.structs.replace(bundle, member="ab" * 32),
            msgspec.structs.replace(bundle, sign_sk="cd" * 32),
            msgspec.structs.replace(bundle, format="other"),
        ]
        for content in [*map(write_bundle, tampered), b"", b"{}", b"\xff\x00"]:
            write_private(site.file, content)
            with pytest.raises(LocalError) as caught:
                async with Peer.open_session_bundle(site.file):
                    pass
            assert caught.value.code == "session_file"

        write_private(site.file, write_bundle(bundle))
        site.file.chmod(0o644)
        with pytest.raises(LocalError, match="config_mode"):
            async with Peer.open_session_bundle(site.file):
                pass


async def test_a_file_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    """Two at once would use a counter twice."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "dm")

        async with Peer.open_session_bundle(site.file):
            with pytest.raises(LocalError, match="config_locked"):
                async with Peer.open_session_bundle(site.file):
                    pass


async def test_a_broker_that_is_away_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    """A job fails at once; nothing was sent."""
    async with serving(tmp_path) as broker:
        site = await site_of(tmp_path, broker.url)
        await handed(site, "dm")

    with pytest.raises(Unreachable):
        async with Peer.open_session_bundle(site.file):
            pass
