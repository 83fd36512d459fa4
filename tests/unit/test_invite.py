"""Links survive chat programs, or say what is wrong with them (docs/spec/invite.md)."""

import pytest

from claudemesh.crypto.invite import MAX_LABEL_CHARACTERS, InviteLink, parse_link
from claudemesh.errors import LinkRefused

SEED = bytes(range(16))
USER_SEED = bytes(range(16, 32))
PREFIX = "5a" * 16
OPEN = InviteLink("wss://broker.example/ws", PREFIX, SEED)
SECRET = OPEN.text().partition("#")[2]


def test_link_is_an_address_and_44_characters() -> None:
    assert OPEN.text() == f"ic://broker.example/j#{SECRET}"
    assert len(SECRET) == 44


@pytest.mark.parametrize(
    "link",
    [
        OPEN,
        InviteLink("wss://broker.example:7900/ws", PREFIX, SEED),
        InviteLink("ws://127.0.0.1:7900/ws", PREFIX, SEED),
        InviteLink("wss://[2001:db8::1]:443/ws", PREFIX, SEED),
        InviteLink("unix:///home/me/.claudemesh/broker.sock", PREFIX, SEED),
        InviteLink("unix:///tmp/with space/b.sock", PREFIX, SEED),
        InviteLink("wss://broker.example/ws", PREFIX, SEED, USER_SEED),
        InviteLink("wss://broker.example/ws", PREFIX, SEED, mesh_label="team"),
        InviteLink("wss://broker.example/ws", PREFIX, SEED, USER_SEED, "my team.x", "Zoë #1"),
        InviteLink("wss://broker.example/ws", PREFIX, SEED, inviter_label="bob"),
        InviteLink("wss://broker.example/ws", PREFIX, SEED, USER_SEED, joiner_label="carol"),
    ],
    ids=lambda link: link.text().replace(SECRET, "S"),
)
def test_link_is_read_as_it_was_written(link: InviteLink) -> None:
    assert parse_link(link.text()) == link


def test_web_form_means_the_same_link() -> None:
    assert parse_link(f"https://broker.example/j#{SECRET}") == OPEN
    assert parse_link(f"https://broker.example/j/#{SECRET}") == OPEN
    assert parse_link(f"IC://broker.example/j#{SECRET}") == OPEN


@pytest.mark.parametrize(
    "damaged",
    [
        f"  {OPEN.text()}\n",
        f"<{OPEN.text()}>",
        f"({OPEN.text()}).",
        f'"{OPEN.text()}"',
        f"“{OPEN.text()}”!",
        f"**{OPEN.text()}**",
        f"`{OPEN.text()}`,",
        f"_{OPEN.text()}_",
        f"_**{OPEN.text()}**_.",
        OPEN.text()[:30] + "\n" + OPEN.text()[30:],
        OPEN.text()[:30] + "\r\n    " + OPEN.text()[30:50] + "\t" + OPEN.text()[50:],
        OPEN.text() + "?",
    ],
    ids=repr,
)
def test_link_is_repaired_when_a_chat_program_wrapped_or_quoted_it(damaged: str) -> None:
    assert parse_link(damaged) == OPEN


@pytest.mark.parametrize("wrap", ["{}", "_{}_", "*_{}_*", "<{}>."])
def test_underscore_that_belongs_to_the_secret_stays(wrap: str) -> None:
    """One secret in 64 ends with the sign that some chat programs use for emphasis."""
    link = InviteLink("wss://broker.example/ws", PREFIX, SEED[:15] + b"?")
    assert link.text().endswith("_")

    assert parse_link(wrap.format(link.text())) == link


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("hello", "no # in it"),
        ("ic://broker.example/j", "no # in it"),
        (f"broker.example/j#{SECRET}", "does not start with ic://"),
        (f"ic://broker.example/#{SECRET}", "no /j before the #"),
        (f"ftp://broker.example/j#{SECRET}", "not of the form"),
        ("ic://broker.example/j#", "not of the form"),
        (f"ic://broker.example/j#{SECRET[:-1]}", "has 43 characters instead of 44 or 66"),
        (f"ic://broker.example/j#{SECRET}A", "has 45 characters instead of 44 or 66"),
        (f"ic://broker.example/j#{SECRET[:-1]}/", "characters that do not belong there"),
        (f"ic://broker.example/j#{SECRET[:-1]}=", "characters that do not belong there"),
        ("ic://broker.example/j#" + "A" * 44, "unknown version"),
        ("ic://broker.example/j#AQ" + "A" * 64, "unknown version"),
        (f"ic://bro;ker/j#{SECRET}", "host name"),
        (f"ic://user@broker.example/j#{SECRET}", "host name"),
        (f"ic://broker.example:99999999/j#{SECRET}", "host name"),
    ],
)
def test_link_that_cannot_be_repaired_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(LinkRefused) as refusal:
        parse_link(text)

    assert refusal.value.code == "link_form"
    assert reason in refusal.value.detail


def test_refusal_does_not_quote_the_secret() -> None:
    """It ends up on a screen or in a log."""
    for text in (f"ic://broker.example/j#{SECRET}A", f"ic://bro;ker/j#{SECRET}", f"http://x/j#{SECRET}"):
        with pytest.raises(LinkRefused) as refusal:
            parse_link(text)
        assert SECRET[4:20] not in str(refusal.value) + repr(refusal.value)


def test_link_does_not_show_its_secret() -> None:
    link = InviteLink("wss://broker.example/ws", PREFIX, SEED, USER_SEED)

    assert SEED.hex() not in repr(link)
    assert repr(SEED) not in repr(link)
    assert repr(USER_SEED) not in repr(link)


def test_invite_key_follows_from_the_seed() -> None:
    """Vector of the protocol: the zero seed."""
    zero = InviteLink("wss://b/ws", PREFIX, bytes(16))

    assert zero.invite_key().public == "9a9340c852d6e0417bb3d0f47635c8db2f4d1f48504140f01bfdd4c86872e83e"
    assert zero.user_key() is None


def test_personal_link_hands_over_a_user_key_of_its_own() -> None:
    personal = InviteLink("wss://b/ws", PREFIX, SEED, SEED)
    user = personal.user_key()

    assert user is not None
    assert user.public != personal.invite_key().public
    assert len(personal.text().partition("#")[2]) == 66


def test_labels_are_short_printable_suggestions() -> None:
    """They come from whoever made the link, so a terminal must not obey them."""
    long = InviteLink("wss://b/ws", PREFIX, SEED, mesh_label="x" * 100)
    hostile = f"ic://b/j#{SECRET}.team%1B%5B2J%0A%E2%80%AE.al%00ice"

    assert parse_link(long.text()).mesh_label == "x" * MAX_LABEL_CHARACTERS
    parsed = parse_link(hostile)
    assert (parsed.mesh_label, parsed.inviter_label) == ("team[2J", "alice")
