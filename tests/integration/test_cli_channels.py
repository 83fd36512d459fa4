"""Three people on three machines talk in channels and groups, with nothing but commands."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.processes import BrokerProcess, Machine, addresses, machine, start_broker, wait_until

PEOPLE = {"alice": "laptop", "bob": "desktop", "carol": "tower"}
SEVERAL_S = 60


class Team(NamedTuple):
    """Alice owns the mesh; Bob and Carol joined it by her link."""

    broker: BrokerProcess
    alice: Machine
    bob: Machine
    carol: Machine


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One team for all tests, each of which makes channels of its own."""
    directory = tmp_path_factory.mktemp("channels")
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(directory))
        alice, bob, carol = (stack.enter_context(machine(directory, name)) for name in PEOPLE)
        alice.ok("mesh", "create", "team", "--broker", broker.url, "--name", "alice", "--device", "laptop")
        link = alice.ok("invite", "--uses", "2")["link"]
        for one, name in ((bob, "bob"), (carol, "carol")):
            one.ok("join", "-", "--name", name, "--device", PEOPLE[name], stdin=link)
        made = Team(broker, alice, bob, carol)
        everybody = {f"{name}.{device}" for name, device in PEOPLE.items()}
        for one in made[1:]:
            wait_until(lambda one=one: addresses(one) == everybody, "names are known", SEVERAL_S)
        yield made


def channels(one: Machine, kind: str = "channel") -> dict[str, Any]:
    """The channels or groups that a machine lists, by name."""
    return {channel["name"]: channel for channel in one.ok(kind, "list")["channels"]}


def knows(one: Machine, name: str) -> None:
    """Wait until a machine was told the name of a channel or group."""
    kind = "group" if name.startswith("@") else "channel"
    wait_until(lambda: name in channels(one, kind), f"{name} is known", SEVERAL_S)


def history(one: Machine, name: str, *args: str) -> list[Any]:
    """What a machine keeps of a channel."""
    result = one.run("channel", "history", name, "--json", *args)
    assert result.exit_code == 0, result.stdout + result.stderr
    return [line["message"] for line in result.json_lines if "message" in line]


def reads(one: Machine, name: str, *texts: str) -> None:
    """Wait until a machine keeps these posts of a channel, in this order."""
    wait_until(lambda: [post["text"] for post in history(one, name)] == list(texts), f"{texts} arrive", SEVERAL_S)


def test_a_private_channel_from_its_making_to_its_leaving(team: Team) -> None:
    """Create, add, post, read with the channel shown, leave: and who was never added sees neither name nor posts."""
    made = team.alice.ok("channel", "create", "salaries", "--private", "--topic", "who earns what")
    added = team.alice.ok("channel", "add", "salaries", "bob")
    knows(team.bob, "#salaries")
    sent = team.alice.ok("send", "#salaries", "the round is closed", "--wait", "delivered")

    shown = team.bob.run("inbox").stdout

    assert (made["channel"]["kind"], made["channel"]["creator"]) == ("private", "alice.laptop")
    assert added["added"] == ["bob.desktop"]
    assert (sent["channel"], sent["stage"]) == ("#salaries", "delivered")
    assert {one["address"]: one["stage"] for one in sent["to"]} == {
        "#salaries": "accepted",
        "bob.desktop": "delivered",
    }
    assert "channel:    #salaries" in shown
    assert f"reply with: claudemesh send '#salaries' --reply-to {sent['id']} TEXT" in shown
    members = team.bob.ok("channel", "members", "salaries")["members"]
    assert [one["address"] for one in members] == ["alice.laptop", "bob.desktop"]
    assert "#salaries" not in channels(team.carol)
    assert team.carol.fails("channel", "join", "salaries")["code"] == "unknown_address"
    assert not [one for one in team.carol.inbox("--all") if one["channel"] == "#salaries"]

    left = team.bob.ok("channel", "leave", "salaries")
    wait_until(lambda: channels(team.alice)["#salaries"]["members"] == 1, "alice knows that bob left")
    team.alice.ok("send", "#salaries", "between ourselves")
    team.alice.ok("send", "bob", "a message after the post", "--wait", "delivered")

    assert not left["channel"]["joined"]
    assert left["changed"]
    assert [post["text"] for post in history(team.bob, "#salaries")] == ["the round is closed"]
    assert team.bob.fails("send", "#salaries", "am I still here?")["code"] == "not_joined"


def test_who_is_not_in_a_channel_does_not_leave_it(team: Team) -> None:
    """What did not change is not reported as if it had."""
    team.alice.ok("channel", "create", "lunch")
    knows(team.bob, "#lunch")

    left = team.bob.run("channel", "leave", "lunch")
    joined = [team.bob.run("channel", "join", "lunch") for _ in range(2)]

    assert (left.exit_code, left.stdout) == (0, "nothing to do: you are not in #lunch\n")
    assert joined[0].stdout.startswith("joined #lunch")
    assert joined[1].stdout == "nothing to do: you are in #lunch already\n"
    assert not team.bob.ok("channel", "join", "lunch")["changed"]


def test_a_newcomer_reads_the_past_only_when_a_member_shares_it(team: Team) -> None:
    """The authors' own signatures come with it, and who gave it; it does not arrive as if it were news."""
    team.alice.ok("channel", "create", "plans", "--private")
    team.alice.ok("channel", "add", "plans", "bob")
    knows(team.bob, "#plans")
    team.alice.ok("send", "#plans", "first", "--wait", "delivered")
    team.bob.ok("send", "#plans", "second", "--wait", "delivered")
    team.alice.ok("channel", "add", "plans", "carol")
    knows(team.carol, "#plans")
    before = history(team.carol, "plans")

    shared = team.bob.ok("channel", "share", "plans", "carol")
    reads(team.carol, "plans", "first", "second")

    assert before == []
    assert [(one["address"], one["messages"]) for one in shared["to"]] == [("carol.tower", 2)]
    assert [(one["sender"]["address"], one["shared_by"]) for one in history(team.carol, "plans")] == [
        ("alice.laptop", "bob.desktop"),
        ("bob.desktop", "bob.desktop"),
    ]
    assert team.carol.inbox() == []
    assert "shared by:  bob.desktop" in team.carol.run("channel", "history", "plans").stdout


def test_whoever_is_removed_gets_no_more_posts(team: Team) -> None:
    """The command says that the secret is replaced, and who stays goes on reading."""
    team.alice.ok("channel", "create", "board", "--private")
    for name in ("bob", "carol"):
        team.alice.ok("channel", "add", "board", name)
    knows(team.bob, "#board")
    knows(team.carol, "#board")
    team.alice.ok("send", "#board", "all of us", "--wait", "delivered")
    reads(team.carol, "board", "all of us")

    removed = team.alice.ok("channel", "remove", "board", "carol")
    team.alice.ok("send", "#board", "two of us")

    assert (removed["removed"], removed["rotated"]) == (["carol.tower"], True)
    reads(team.bob, "board", "all of us", "two of us")
    assert [one["text"] for one in history(team.carol, "board")] == ["all of us"]
    assert team.carol.fails("send", "#board", "and I?")["code"] == "not_joined"


def test_an_open_channel_comes_to_those_who_joined_it(team: Team) -> None:
    """Who did not join gets no posts, and may at any time."""
    team.alice.ok("channel", "create", "deploys", "--topic", "what goes out")
    knows(team.bob, "#deploys")
    joined = team.bob.ok("channel", "join", "#deploys")
    knows(team.carol, "#deploys")

    team.alice.ok("send", "#deploys", "v1 is out", "--wait", "delivered")

    assert joined["channel"]["joined"]
    assert [one["text"] for one in history(team.bob, "deploys")] == ["v1 is out"]
    assert history(team.carol, "deploys") == []
    listed = channels(team.carol)["#deploys"]
    assert (listed["joined"], listed["topic"]) == (False, "what goes out")
    assert "is open: every peer of the mesh may read it" in team.carol.run("channel", "members", "deploys").stdout
    error = team.alice.fails("channel", "add", "deploys", "carol")
    assert (error["code"], error["exit_code"]) == ("usage", 2)


def test_a_group_reaches_its_members_with_one_message(team: Team) -> None:
    """Anybody may enter it; its address has a sign of its own."""
    team.alice.ok("group", "create", "reviewers")
    knows(team.bob, "@reviewers")
    team.bob.ok("group", "join", "reviewers")
    team.alice.ok("group", "add", "@reviewers", "carol")
    sent = team.bob.ok("send", "@reviewers", "12 is ready", "--wait", "delivered")

    reads(team.alice, "@reviewers", "12 is ready")
    reads(team.carol, "@reviewers", "12 is ready")
    left = team.carol.ok("group", "leave", "reviewers")

    assert sent["channel"] == "@reviewers"
    assert "channel:    @reviewers" in team.alice.run("inbox", "--all").stdout
    assert (left["channel"]["joined"], left["channel"]["members"]) == (False, 2)
    assert [one["address"] for one in team.alice.ok("group", "members", "reviewers")["members"]] == [
        "alice.laptop",
        "bob.desktop",
    ]
    assert "@reviewers" not in channels(team.alice)
    removed = team.alice.ok("group", "remove", "reviewers", "bob")
    assert removed["removed"] == ["bob.desktop"]


def test_the_timeline_of_a_post_names_the_channel_and_who_confirmed_it(team: Team) -> None:
    """The broker's word stands for the channel, each member's for itself."""
    sent = team.alice.ok("send", "#general", "good morning", "--wait", "delivered")
    wait_until(
        lambda: (
            {step["to"] for step in team.alice.ok("message", sent["id"])["steps"]}
            >= {"#general", "bob.desktop", "carol.tower"}
        ),
        "both have confirmed it",
    )

    timeline = team.alice.ok("message", sent["id"])

    assert (timeline["address"], timeline["channel"], timeline["stage"]) == ("#general", "#general", "delivered")
    witnesses = {(step["to"], step["stage"]): step["witness"] for step in timeline["steps"]}
    assert witnesses["#general", "accepted"] == "broker"
    assert witnesses["bob.desktop", "delivered"] == "peer"
    received = team.bob.ok("message", sent["id"])
    assert (received["direction"], received["channel"]) == ("received", "#general")


def test_an_unknown_channel_is_an_error_that_names_the_nearest(team: Team) -> None:
    """Exit code 4, nothing is sent, and a name that looks like another one cannot be made."""
    team.alice.ok("channel", "create", "releases")

    for command in (("send", "#relaeses", "v2"), ("channel", "join", "relaeses"), ("channel", "history", "relaeses")):
        error = team.alice.fails(*command)
        assert (error["code"], error["exit_code"]) == ("unknown_address", 4)
        assert "did you mean #releases" in error["message"]
    assert team.alice.fails("channel", "create", "re1eases")["code"] == "name_taken"
    assert team.alice.fails("channel", "create", "Not A Name")["code"] == "usage"
    assert team.alice.fails("channel", "join", "@reviewers")["code"] == "usage"


def test_a_tag_reaches_one_session_or_all_and_says_which(team: Team) -> None:
    """Sessions that `watch` opened with tags; the sender is told whom its message reached."""
    for one, label in ((team.bob, "api"), (team.carol, "web")):
        process = one.start("watch", "--session", label, "--tag", "repo=billing", "--json")
        assert process.stdout is not None
        assert "watching" in json.loads(process.stdout.readline())
    expected = {"bob.desktop/api", "carol.tower/web"}
    wait_until(lambda: reached_by_all(team.alice) == expected, "both sessions are known", SEVERAL_S)

    sent = team.alice.ok("send", "tag:repo=billing", "who can look at 12?", "--wait", "delivered")

    (chosen,) = sent["to"]
    assert chosen["address"] in expected
    assert chosen["stage"] == "delivered"
    assert chosen["status"] == "idle"
    said = team.alice.run("send", "tag:repo=billing", "toolchain 2 is out", "--all", "--wait", "delivered").stdout
    assert all(address in said for address in expected)
    error = team.alice.fails("send", "tag:repo=nothing", "anybody?")
    assert error["code"] == "unknown_address"
    assert "repo=billing" in error["message"]
    assert team.alice.fails("send", "bob", "x", "--all")["code"] == "usage"
    assert team.alice.fails("watch", "--tag", "repo=billing")["code"] == "usage"


def reached_by_all(one: Machine) -> set[str]:
    """Whom a tag reaches; nobody while no session is known."""
    result = one.run("send", "tag:repo=billing", "hello", "--all", "--json")
    return {to["address"] for to in result.json["to"]} if result.exit_code == 0 else set()
