"""Removing, promoting, recovering, granting, handing out: the commands, against real daemons and a real broker."""

import json
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import BrokerProcess, Machine, machine, start_broker, wait_until


class Site(NamedTuple):
    """A broker; Alice, who owns `team` on it; Bob, a member; Carol, who is nowhere yet."""

    broker: BrokerProcess
    alice: Machine
    bob: Machine
    carol: Machine
    words: str
    mesh_id: str


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice, bob, carol = (stack.enter_context(machine(tmp_path, name)) for name in ("alice", "bob", "carol"))
        made = alice.ok("mesh", "create", "team", "--broker", broker.url, "--name", "alice", "--device", "laptop")
        join(alice, bob, "bob")
        yield Site(broker, alice, bob, carol, made["recovery_words"], made["mesh"]["id"])


def join(owner: Machine, newcomer: Machine, name: str, *options: str) -> str:
    """Join by a link of `owner`, and wait until both know each other by name; the invite's id."""
    invite = owner.ok("invite", *options)
    newcomer.ok("join", "-", "--name", name, "--device", "box", stdin=invite["link"])
    wait_until(lambda: f"{name}.box" in addresses(owner), f"the name of {name} arrives")
    wait_until(lambda: "alice.laptop" in addresses(newcomer), "and the other way")
    return str(invite["id"])


def addresses(one: Machine) -> list[str]:
    return [peer["address"] for peer in one.ok("peers")["peers"]]


def inbox_texts(one: Machine) -> list[str]:
    return [message["text"] for message in one.inbox("--all")]


def test_a_removed_peer_is_out_for_everybody_although_nobody_was_online(site: Site) -> None:
    """The others learn of it when they return, and its own daemon says why it has no link."""
    join(site.alice, site.carol, "carol")
    site.bob.ok("daemon", "stop")
    site.carol.ok("daemon", "stop")

    revoked = site.alice.ok("revoke", "carol", "--reason", "stolen")

    assert [peer["address"] for peer in revoked["peers"]] == ["carol.box"]
    assert revoked["rotated"] is True
    wait_until(lambda: "carol.box" not in addresses(site.bob), "bob hears of it")
    assert site.bob.fails("send", "carol", "hello")["code"] == "unknown_address"
    wait_until(lambda: site.carol.ok("mesh", "list")["meshes"][0]["link_problem"] == "revoked", "carol is told")


def test_nobody_rises_by_their_own_word(site: Site) -> None:
    """A plain message with the rule and the own role, exit code 5, and nothing changed."""
    for command in (("role", "bob", "owner"), ("revoke", "alice"), ("invite",)):
        error = site.bob.fails(*command)
        assert (error["code"], error["exit_code"], error["took_effect"]) == ("denied", 5, "nothing")
        assert "member" in error["message"]
    human = site.bob.run("role", "bob", "owner")
    assert "only an owner changes roles; you are member" in human.stderr
    assert "Nothing took effect." in human.stderr

    assert [peer["address"] for peer in site.alice.ok("role", "bob", "admin")["changed"]] == ["bob.box"]
    wait_until(lambda: site.bob.ok("whoami")["identities"][0]["role"] == "admin", "bob is admin")
    assert site.bob.ok("invite")["uses"] == 1


def test_printed_words_bring_a_mesh_back_on_a_new_machine(site: Site) -> None:
    """Read from standard input; the thief, the admins and their links are out."""
    site.alice.ok("role", "bob", "admin")
    link = site.alice.ok("invite", "--uses", "5")["link"]

    recovered = site.carol.ok(
        *("recover", "--broker", site.broker.url, "--mesh-id", site.mesh_id[:32], "--name", "alice", "--device", "new"),
        stdin=site.words + "\n",
    )

    assert recovered["mesh"]["role"] == "owner"
    assert len(recovered["removed"]) == 2
    assert len(recovered["invites"]) == 1
    wait_until(lambda: site.alice.ok("mesh", "list")["meshes"][0]["link_problem"] == "revoked", "the thief is out")
    with machine(site.alice.home.parent, "eve") as eve:
        assert eve.fails("join", "-", stdin=link)["code"] == "invite_revoked"


def test_a_machine_of_the_mesh_recovers_it_by_its_alias(site: Site) -> None:
    """And goes on under new keys; wrong words change nothing, and are not repeated."""
    wrong = site.bob.fails("recover", "team", stdin="AAAA-" * 8)
    assert "recovery key" in wrong["message"]
    assert "AAAA" not in str(wrong)
    assert site.bob.ok("whoami")["identities"][0]["role"] == "member"

    recovered = site.bob.ok("recover", stdin=site.words)

    assert recovered["mesh"]["role"] == "owner"
    assert [peer["role"] for peer in site.bob.ok("peers")["peers"]] == ["owner"]


def test_a_leaked_link_is_closed_with_everybody_who_came_by_it(site: Site) -> None:
    """One command; those who came by another link stay."""
    invite = join(site.alice, site.carol, "carol", "--uses", "3")

    closed = site.alice.ok("invite", "revoke", invite[:8], "--with-members")

    assert [peer["address"] for peer in closed["removed"]] == ["carol.box"]
    assert closed["kept"] == []
    assert sorted(addresses(site.alice)) == ["alice.laptop", "bob.box"]


def test_the_roster_reads_as_a_history(site: Site) -> None:
    """Who admitted whom, by which invite; as JSON with keys, and as lines."""
    entries = site.alice.ok("mesh", "log")["entries"]

    assert [entry["op"] for entry in entries] == ["genesis", "invite", "admit"]
    assert entries[2]["text"] == f"bob.box joined by invite {entries[1]['invite'][:8]} of alice.laptop"
    assert entries[2]["invite"] in entries[2]["signers"]
    assert site.alice.ok("mesh", "log", "--from", "2")["entries"] == entries[2:]
    shown = site.alice.run("mesh", "log").stdout
    assert "alice.laptop created the mesh" in shown
    heads = site.alice.ok("mesh", "heads")
    assert (heads["frozen"], heads["branches"], heads["head"]) == ("", [], entries[2]["head"])
    assert heads["broker_head"] == heads["head"]
    assert site.alice.fails("mesh", "trust", heads["head"][:16], "--yes")["exit_code"] == 2


def test_a_replaced_box_key_takes_the_next_message(site: Site) -> None:
    """Nothing is lost by it."""
    before = site.bob.ok("rekey")["card"]

    site.alice.ok("send", "bob", "to the new key", "--wait", "delivered")

    assert inbox_texts(site.bob) == ["to the new key"]
    assert site.bob.ok("rekey")["card"] == before + 1


def test_a_blocked_sender_is_told_so_and_nobody_is_shown_what_it_wrote(site: Site) -> None:
    """With a signed receipt and its code; afterwards it is heard again."""
    blocked = site.bob.ok("block", "alice")["peers"]
    assert [(one["address"], one["blocked"]) for one in blocked] == [("alice.laptop", True)]

    refused = site.alice.run("send", "bob", "do you hear me?", "--wait", "delivered", "--json")

    assert refused.exit_code == 5
    assert (refused.json["stage"], refused.json["to"][0]["code"]) == ("refused", "blocked")
    steps = site.alice.ok("message", refused.json["id"])["steps"]
    assert ("refused", "peer") in [(step["stage"], step["witness"]) for step in steps]
    assert inbox_texts(site.bob) == []
    site.bob.ok("unblock", "alice")
    site.alice.ok("send", "bob", "and now?", "--wait", "delivered")
    assert inbox_texts(site.bob) == ["and now?"]


def test_a_permission_is_granted_and_taken_for_one_peer(site: Site) -> None:
    """What is missing is refused with its own code, and said in the list."""
    site.bob.ok("grant", "--revoke", "alice", "dm")
    assert site.bob.ok("grants", "alice")["peers"][0]["permissions"] == ["ask", "channel"]
    refused = site.alice.run("send", "bob", "no", "--wait", "delivered", "--json").json
    assert (refused["stage"], refused["to"][0]["code"]) == ("refused", "not_granted")

    site.bob.ok("grant", "alice", "dm", "now")

    sent = site.alice.ok("send", "bob", "interrupts", "--priority", "now", "--wait", "delivered")
    assert sent["to"][0]["code"] == ""
    assert site.bob.inbox()[0]["priority"] == "now"
    (listed,) = site.bob.ok("grants")["peers"]
    assert {(rule["permission"], rule["allowed"], rule["scope"]) for rule in listed["rules"]} == {
        ("dm", True, "user"),
        ("now", True, "user"),
    }


def test_who_may_not_interrupt_is_heard_without_interrupting(site: Site) -> None:
    """The sender learns it from the receipt."""
    sent = site.alice.ok("send", "bob", "urgent!", "--priority", "now", "--wait", "delivered")

    assert (sent["stage"], sent["to"][0]["code"]) == ("delivered", "as_next")
    assert site.bob.inbox()[0]["priority"] == "next"


def test_a_job_sends_by_its_session_and_can_do_nothing_else(site: Site) -> None:
    """Without a daemon, without a configuration directory, and without any key of Alice's in its file."""
    file = site.carol.home / "job.session"
    made = site.alice.ok(
        "session", "--caps", "dm", "--label", "ci", "--expires", "1h", "--out", str(site.alice.home / "job")
    )
    assert "bundle" not in made
    content = (site.alice.home / "job").read_bytes()
    file.write_bytes(content)
    file.chmod(0o600)
    assert stat.S_IMODE((site.alice.home / "job").stat().st_mode) == 0o600

    sent = site.carol.run("--session", str(file), "send", "bob", "tests are green")
    again = site.carol.ok("send", "bob.box", "deployed", CLAUDEMESH_SESSION=str(file))

    assert sent.exit_code == 0, sent.stderr
    assert "accepted; for bob.box" in sent.stdout
    assert again["stage"] == "accepted"
    wait_until(lambda: inbox_texts(site.bob) == ["tests are green", "deployed"], "bob has both")
    assert [one["sender"]["address"] for one in site.bob.inbox("--all")] == ["alice.laptop", "alice.laptop"]
    assert not site.carol.config_dir.exists()
    for command in (("peers",), ("revoke", "bob"), ("invite",), ("watch",), ("channel", "create", "x")):
        error = site.carol.fails(*command, CLAUDEMESH_SESSION=str(file))
        assert (error["exit_code"], "can only send" in error["message"]) == (2, True)
    denied = site.carol.fails("send", "#general", "no", CLAUDEMESH_SESSION=str(file))
    assert (denied["code"], denied["exit_code"]) == ("cap", 5)
    config = json.loads((site.alice.config_dir / "config.json").read_text())
    for secret in secrets_of(config):
        assert secret.encode() not in content
        assert bytes.fromhex(secret) not in content


def test_a_session_is_listed_and_ended(site: Site) -> None:
    """What it sends afterwards is refused by its recipients."""
    bundle = site.alice.run("session", "--label", "ci")
    file = site.carol.home / "job.session"
    file.write_text(bundle.stdout)
    file.chmod(0o600)
    (listed,) = site.alice.ok("session", "list")["sessions"]
    assert (listed["label"], listed["capabilities"], listed["ended_at"]) == ("ci", ["dm"], 0)

    assert site.alice.ok("session", "end", "ci")["session"]["ended_at"] > 0

    site.alice.ok("send", "bob", "this carries the new card", "--wait", "delivered")
    site.carol.ok("--session", str(file), "send", "bob", "from the thief")
    site.alice.ok("send", "bob", "after it", "--wait", "delivered")
    assert inbox_texts(site.bob) == ["this carries the new card", "after it"]
    assert site.alice.fails("session", "end", "ci")["exit_code"] == 4
    assert site.alice.fails("session", "--caps", "state_w")["exit_code"] == 2


def test_a_session_that_is_written_to_is_named_in_full(site: Site) -> None:
    """Not only its peer: the sender sees which of its sessions a short form meant."""
    site.bob.start("watch", "--session", "frontend")
    wait_until(
        lambda: "frontend" in [one["label"] for peer in site.alice.ok("peers")["peers"] for one in peer["sessions"]],
        "alice sees the session",
    )

    sent = site.alice.run("send", "frontend", "is the page up?")

    assert "bob.box/frontend" in sent.stdout
    assert [one["address"] for one in site.alice.ok("send", "frontend", "again")["to"]] == ["bob.box/frontend"]
    assert [one["address"] for one in site.alice.ok("send", "bob", "to you")["to"]] == ["bob.box"]


def secrets_of(value: Any) -> list[str]:
    """Every secret of a configuration, however deep."""
    if isinstance(value, dict):
        own = [item for name, item in value.items() if name.endswith("_sk")]
        return own + [one for item in value.values() for one in secrets_of(item)]
    if isinstance(value, list):
        return [one for item in value for one in secrets_of(item)]
    return []
