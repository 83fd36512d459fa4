"""Meshes, invites, devices, backups: what the commands change, and what they refuse in words of their own."""

import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import BrokerProcess, Machine, machine, start_broker, wait_until


class Site(NamedTuple):
    """A broker, Alice who owns `team` on it, and Bob who is nowhere yet."""

    broker: BrokerProcess
    alice: Machine
    bob: Machine


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Only Alice's daemon runs."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        alice.ok("mesh", "create", "team", "--broker", broker.url, "--name", "alice", "--device", "laptop")
        yield Site(broker, alice, bob)


def test_joining_works_while_the_owner_is_offline(site: Site) -> None:
    """The invite is a key in a link; nobody else need be there."""
    link = site.alice.ok("invite")["link"]
    site.alice.ok("daemon", "stop")

    joined = site.bob.ok("join", link, "--name", "bob", "--device", "desktop")

    assert joined["mesh"]["alias"] == "team"
    assert joined["mesh"]["members"] == 2
    assert joined["mesh"]["role"] == "member"


def test_a_link_that_a_chat_program_damaged_still_works(site: Site) -> None:
    """Wrapped, quoted, followed by a full stop."""
    link = site.alice.ok("invite")["link"]

    joined = site.bob.ok("join", "-", stdin=f"“{link[:20]}\r\n  {link[20:50]}\n{link[50:]}”.\n")

    assert joined["mesh"]["members"] == 2


def test_a_spent_link_says_so(site: Site) -> None:
    """One use is one use."""
    link = site.alice.ok("invite", "--uses", "1")["link"]
    site.bob.ok("join", link)

    with machine(site.bob.home.parent, "carol") as carol:
        error = carol.fails("join", "-", stdin=link)

    assert (error["code"], error["exit_code"]) == ("invite_exhausted", 5)


def test_an_expired_link_says_so(site: Site) -> None:
    """The rules of the log end it, not a timer in a database."""
    answer = site.alice.ok("invite", "--expires", "1s")
    wait_until(lambda: time.time() * 1000 > answer["expires_at"], "its time is over")

    error = site.bob.fails("join", "-", stdin=answer["link"])

    assert (error["code"], error["took_effect"]) == ("invite_expired", "nothing")


def test_a_revoked_link_says_so(site: Site) -> None:
    """And the list shows it."""
    answer = site.alice.ok("invite", "--uses", "5")
    site.alice.ok("invite", "revoke", answer["id"][:8])

    error = site.bob.fails("join", "-", stdin=answer["link"])

    assert error["code"] == "invite_revoked"
    (listed,) = site.alice.ok("invite", "list")["invites"]
    assert (listed["state"], listed["used"], listed["uses"], listed["kind"]) == ("revoked", 0, 5, "open")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("", "empty"),
        ("hello", "no #"),
        ("ic://host/j#", "not of the form"),
        ("ic://host/j#AAAA", "4 characters instead of 44"),
        ("ic://host/x#" + "A" * 44, "no /j"),
        ("ic://ho st\u0000/j#" + "A" * 44, "link_form"),
    ],
)
def test_a_damaged_link_says_precisely_what_is_wrong(site: Site, link: str, words: str) -> None:
    """Each kind of damage in words, and the secret is not repeated."""
    error = site.bob.fails("join", "-", stdin=link)

    assert error["code"] == "link_form"
    assert words in error["message"] + error["code"]
    assert "A" * 20 not in str(error)


def test_a_device_link_makes_a_peer_of_the_same_user(site: Site) -> None:
    """Distinct keys, one user."""
    link = site.alice.ok("device", "link")["link"]

    site.bob.ok("join", link, "--device", "phone")

    ours = site.alice.ok("whoami")["identities"][0]
    theirs = site.bob.ok("whoami")["identities"][0]
    assert theirs["user_key"] == ours["user_key"]
    assert theirs["peer"] != ours["peer"]
    wait_until(
        lambda: "own device" in [peer["trust"] for peer in site.alice.ok("peers")["peers"]], "alice sees her phone"
    )


def test_a_qr_code_of_a_link_is_as_private_as_the_link(site: Site) -> None:
    """On request only, in a file that nobody else can read, and never over another file."""
    target = site.alice.home / "link.png"

    site.alice.ok("invite", "--qr", str(target))

    assert target.read_bytes().startswith(b"\x89PNG")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert site.alice.fails("invite", "--qr", str(target))["exit_code"] == 2
    assert site.alice.fails("invite", "--qr", str(site.alice.home / "link.gif"))["exit_code"] == 2


def test_leaving_tells_the_roster_and_deletes_the_keys(site: Site) -> None:
    """Afterwards the others list the peer no more, and its daemon has no mesh."""
    site.bob.ok("join", site.alice.ok("invite")["link"], "--name", "bob")

    left = site.bob.ok("mesh", "leave", "team", "--yes")

    assert left["revoked"] is True
    assert site.bob.ok("mesh", "list")["meshes"] == []
    wait_until(lambda: len(site.alice.ok("peers")["peers"]) == 1, "alice's roster says so")


def test_a_verb_without_a_mesh_says_how_to_get_one(site: Site) -> None:
    """The first thing that a new user sees must be a way on."""
    error = site.bob.fails("send", "alice", "hello")

    assert (error["code"], error["exit_code"]) == ("no_mesh", 4)
    assert "claudemesh join" in error["hint"]


def test_two_meshes_need_to_be_told_apart(site: Site) -> None:
    """The default is only taken where there is one."""
    site.alice.ok("mesh", "create", "other", "--broker", site.broker.url)

    error = site.alice.fails("peers")

    assert error["code"] == "ambiguous_mesh"
    assert "team" in error["message"]
    assert site.alice.ok("peers", "--mesh", "other")["mesh"] == "other"


def test_a_broker_that_is_not_there_is_named(site: Site) -> None:
    """Nothing was made, and the exit code is that of the network."""
    error = site.bob.fails("mesh", "create", "x", "--broker", "ws://127.0.0.1:9/ws")

    assert (error["code"], error["exit_code"]) == ("broker_unreachable", 6)
    assert site.bob.ok("mesh", "list")["meshes"] == []


def test_a_backup_brings_the_keys_back(site: Site) -> None:
    """To a new machine: same peer, same mesh. The file is private and does not hold the keys in the clear."""
    file = site.alice.home / "keys.backup"
    peer = site.alice.ok("whoami")["identities"][0]["peer"]
    site.alice.ok("backup", str(file), "--passphrase-file", "-", stdin="correct horse\n")
    site.alice.ok("daemon", "stop")

    restored = site.bob.ok("restore", str(file), "--passphrase-file", "-", stdin="correct horse\n")

    assert (restored["meshes"], restored["replaced"]) == (["team"], False)
    assert site.bob.ok("whoami")["identities"][0]["peer"] == peer
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert peer.encode() not in file.read_bytes()


def test_a_restore_never_overwrites_by_accident(site: Site) -> None:
    """Keys that are here stay here, without --force; a wrong passphrase changes nothing even with it."""
    file = site.alice.home / "keys.backup"
    site.alice.ok("backup", str(file), "--passphrase-file", "-", stdin="right\n")
    before = (site.alice.config_dir / "config.json").read_bytes()

    refused = site.alice.fails("restore", str(file), "--passphrase-file", "-", stdin="right\n")
    wrong = site.alice.fails("restore", str(file), "--passphrase-file", "-", "--force", stdin="wrong\n")

    assert refused["code"] == "config_exists"
    assert (wrong["code"], wrong["exit_code"]) == ("secretbox_open", 7)
    assert (site.alice.config_dir / "config.json").read_bytes() == before
    assert site.alice.ok("restore", str(file), "--passphrase-file", "-", "--force", stdin="right\n")["replaced"] is True


@pytest.mark.parametrize("content", [b"", b"CMB2", b"PK\x03\x04" + b"x" * 200, b"CMB2" + b"\xff" * 200])
def test_a_file_that_is_no_backup_is_refused_in_words(site: Site, content: bytes) -> None:
    """Damaged or hostile: no memory bomb, no stack trace."""
    file = site.bob.home / "odd.backup"
    file.write_bytes(content)

    error = site.bob.fails("restore", str(file), "--passphrase-file", "-", stdin="x\n")

    assert error["code"] in ("backup_magic", "backup_params")


def test_a_backup_needs_a_passphrase_and_a_new_file(site: Site) -> None:
    """Without a terminal nobody is asked; an existing file is left alone."""
    file = site.alice.home / "keys.backup"
    file.write_bytes(b"mine")

    assert site.alice.fails("backup", str(file), "--passphrase-file", "-", stdin="x\n")["exit_code"] == 2
    assert (
        site.alice.fails("backup", str(site.alice.home / "new"), "--passphrase-file", "-", stdin="\n")["exit_code"] == 2
    )
    assert site.alice.fails("backup", str(site.alice.home / "new"))["exit_code"] == 2
    assert file.read_bytes() == b"mine"
