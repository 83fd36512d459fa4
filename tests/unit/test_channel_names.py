"""What channels may be called, and that none passes for another."""

import pytest

from claudemesh.errors import UsageError
from claudemesh.peer import channel_names
from claudemesh.peer.channel_names import Named
from claudemesh.protocol.roster import EVERYONE, GENERAL, SPACE, Channel
from claudemesh.types import ChannelId, PeerId

ALICE = PeerId("a1" * 32)


def channel(number: int, kind: str = "open", since_seq: int = 1) -> Channel:
    return Channel(ChannelId(f"{number:032x}"), kind, ALICE, since_seq, since_seq)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a", "deploys", "0-day", "x_y-z", "a" * 40])
def test_a_plain_name_is_one(name: str) -> None:
    """Lowercase letters, digits, `-` and `_`, up to 40; typed with or without its sign."""
    assert channel_names.require_channel_name(f"#{name}") == name
    assert channel_names.require_channel_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "dеploys", "a b", "a" * 41, "a.b", "a~b", "#", "naïve"])
def test_anything_else_is_not(name: str) -> None:
    """Among them letters of other scripts that look like those of ours."""
    with pytest.raises(UsageError):
        channel_names.require_channel_name(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("deploys", "dep1oys"),
        ("deploys", "depl0ys"),
        ("deploy-log", "deploylog"),
        ("deploy_log", "deploy-log"),
        ("modern", "modem"),
        ("wave", "vvave"),
        ("corner", "c-o-r-n-e-r"),
    ],
)
def test_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    """Digits for letters, two letters for one, and signs that the eye skips."""
    assert channel_names.skeleton(one) == channel_names.skeleton(other)
    assert channel_names.imitated(other, "#", [Named(channel(1), one, 5)]) == f"#{one}"


def test_a_group_and_a_channel_may_share_a_name() -> None:
    """Their signs tell them apart."""
    named = [Named(channel(1), "ops", 5), Named(channel(2, "group"), "ops", 6)]

    assert channel_names.imitated("ops", "@", named[:1]) is None
    assert list(channel_names.shown_names(named).values()) == ["#ops", "@ops"]


def test_a_name_belongs_to_the_channel_that_was_known_first() -> None:
    """Even if the other one is older in the roster: nobody can keep a channel in reserve to take a name over."""
    used, reserved = channel(2, since_seq=9), channel(1, since_seq=3)

    shown = channel_names.shown_names([Named(reserved, "dep1oys", 200), Named(used, "deploys", 100)])

    assert shown == {used.id: "#deploys", reserved.id: f"#dep1oys~{reserved.id[:8]}"}


def test_only_general_is_shown_of_the_channels_that_are_built_in() -> None:
    """There is no ambient broadcast, and the space is not for talking."""
    built_in = [Channel(one, "open", None, 0, 0) for one in (EVERYONE, GENERAL, SPACE)]

    assert [one.id for one in built_in if channel_names.is_shown(one)] == [GENERAL]
