"""What a channel may be called, and which of two names that look alike is shown as it is (docs/spec/channels.md §9).

A name is a suggestion of whoever told it: the id in the roster is the channel. Nothing is ever sent to a name that two
channels share.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from claudemesh.errors import UsageError
from claudemesh.protocol.roster import GENERAL, Channel
from claudemesh.types import ChannelId

GENERAL_NAME: Final = "general"
MAX_TOPIC_CHARACTERS: Final = 200
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}\Z")
_SUFFIX_DIGITS: Final = 8


class Named(NamedTuple):
    """A channel and the name that it goes by, without its sigil."""

    channel: Channel
    name: str
    known_at: int
    """Since when this peer knows the name, by its own clock; 0 for a built-in one."""


def is_channel_name(name: str) -> bool:
    """Whether a text may be the name of a channel or group: 1 to 40 of `a-z 0-9 - _`, no sign first."""
    return _NAME.match(name) is not None


def require_channel_name(text: str) -> str:
    """A name as a person typed it, with or without its sigil; raises `UsageError` when it cannot be one."""
    name = text.strip().removeprefix("#").removeprefix("@")
    if not is_channel_name(name):
        raise UsageError(
            "usage", f"{text!r}: a name has 1 to 40 of a-z, 0-9, - and _, and begins with a letter or digit"
        )
    return name


def skeleton(name: str) -> str:
    """What remains of a name for the eye: two names with one skeleton may be mistaken for each other."""
    plain = name.replace("-", "").replace("_", "")
    return plain.replace("rn", "m").replace("vv", "w").replace("0", "o").replace("1", "l")


def sigil(channel: Channel) -> str:
    """`@` for a group, `#` for everything else."""
    return "@" if channel.kind == "group" else "#"


def shown_names(named: Iterable[Named]) -> dict[ChannelId, str]:
    """How each channel is written, sigil included.

    Of channels whose names look alike, the one that this peer has known longest keeps its name; the others are shown
    with the beginning of their ids. So no channel, however old, takes over a name that is in use.
    """
    taken: set[tuple[str, str]] = set()
    shown = {}
    for channel, name, _ in sorted(named, key=lambda one: (one.known_at, one.channel.since_seq, one.channel.id)):
        key = (sigil(channel), skeleton(name))
        suffix = f"~{channel.id[:_SUFFIX_DIGITS]}" if key in taken else ""
        taken.add(key)
        shown[channel.id] = f"{sigil(channel)}{name}{suffix}"
    return shown


def imitated(name: str, mark: str, named: Iterable[Named]) -> str | None:
    """The known name that `name` could be mistaken for, None when there is none."""
    for channel, other, _ in named:
        if sigil(channel) == mark and skeleton(other) == skeleton(name):
            return f"{mark}{other}"
    return None


def is_shown(channel: Channel) -> bool:
    """Whether people see it: of the built-in channels only `#general` is one to talk in."""
    return channel.creator is not None or channel.id == GENERAL
