"""`claudemesh channel`: create, list, join, leave, members, add, remove, history, share."""

from collections.abc import Iterator

import click

from claudemesh.cli.channel_answers import (
    added_lines,
    created_lines,
    joined_lines,
    left_lines,
    listed_lines,
    member_lines,
    removed_lines,
    signed,
)
from claudemesh.cli.completing import complete_channel, complete_peer
from claudemesh.cli.inbox import show_event
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible

_MOST = 1_000


@click.group(epilog="Example: claudemesh channel create deploys --topic 'what goes out'")
def channel() -> None:
    """Create, list, join or leave a channel; its members and history.

    A channel is written deploys or '#deploys'; in quotes, because a shell takes # for a comment. Post
    with `claudemesh send '#deploys' TEXT`.
    """


@channel.command(epilog="Example: claudemesh channel create salaries --private")
@click.argument("name")
@click.option("--private", is_flag=True, help="Only for those who are added; others see neither name nor posts.")
@click.option("--topic", default="", help="What it is about; up to 200 characters.")
@mesh_option
@verb
def create(verb: Verb, name: str, private: bool, topic: str, mesh: str) -> None:
    """Create a channel, with you in it.

    The broker learns that there is a channel, never its name. An open one can be joined by every
    member of the mesh.
    """
    kind = "private" if private else "open"
    verb.answer(verb.ask("channel.create", mesh=mesh, name=signed(name, "#"), kind=kind, topic=topic), created_lines)


@channel.command("list", epilog="Example: claudemesh channel list --json")
@mesh_option
@verb
def list_channels(verb: Verb, mesh: str) -> None:
    """List the channels of a mesh and which you read."""
    verb.answer(verb.ask("channel.list", mesh=mesh, groups=False), listed_lines)


@channel.command(epilog="Example: claudemesh channel join deploys")
@click.argument("channel", shell_complete=complete_channel)
@mesh_option
@verb
def join(verb: Verb, channel: str, mesh: str) -> None:
    """Read an open channel from now on.

    A private channel is entered by being added to it.
    """
    verb.answer(verb.ask("channel.join", mesh=mesh, channel=signed(channel, "#")), joined_lines)


@channel.command(epilog="Example: claudemesh channel leave deploys")
@click.argument("channel", shell_complete=complete_channel)
@mesh_option
@verb
def leave(verb: Verb, channel: str, mesh: str) -> None:
    """Read a channel no longer."""
    verb.answer(verb.ask("channel.leave", mesh=mesh, channel=signed(channel, "#")), left_lines)


@channel.command(epilog="Example: claudemesh channel members salaries")
@click.argument("channel", shell_complete=complete_channel)
@mesh_option
@verb
def members(verb: Verb, channel: str, mesh: str) -> None:
    """List who can read a channel.

    Of an open channel that is every peer of the mesh: each may join at any time.
    """
    verb.answer(verb.ask("channel.members", mesh=mesh, channel=signed(channel, "#")), member_lines)


@channel.command(epilog="Example: claudemesh channel add salaries bob")
@click.argument("channel", shell_complete=complete_channel)
@click.argument("member", shell_complete=complete_peer)
@mesh_option
@verb
def add(verb: Verb, channel: str, member: str, mesh: str) -> None:
    """Add a peer, or every peer of a person, to a private channel.

    They read what is posted from now on; `claudemesh channel share` gives them what was before.
    """
    verb.answer(verb.ask("channel.add", mesh=mesh, channel=signed(channel, "#"), member=member), added_lines)


@channel.command(epilog="Example: claudemesh channel remove salaries bob.phone")
@click.argument("channel", shell_complete=complete_channel)
@click.argument("member", shell_complete=complete_peer)
@mesh_option
@verb
def remove(verb: Verb, channel: str, member: str, mesh: str) -> None:
    """Remove a peer, or every peer of a person, from a private channel.

    Its secret is replaced at once: they can open nothing that is posted afterwards. What they have
    read they keep.
    """
    verb.answer(verb.ask("channel.remove", mesh=mesh, channel=signed(channel, "#"), member=member), removed_lines)


@channel.command(epilog="Example: claudemesh channel history deploys --limit 20")
@click.argument("channel", shell_complete=complete_channel)
@click.option("--limit", default=100, type=click.IntRange(1, _MOST), show_default=True, help="At most so many posts.")
@mesh_option
@verb
def history(verb: Verb, channel: str, limit: int, mesh: str) -> None:
    """Show what is kept here of a channel or @group.

    Kept are up to 1,000 received posts of each channel for 30 days, and your own. With --json, one
    {"message": …} per line and the answer as last line.
    """

    def show(event: Object) -> None:
        show_event(verb, event)

    args = {"mesh": mesh, "channel": signed(channel, "#", or_group=True), "limit": limit}
    verb.answer(verb.follow("channel.history", show, **args), _history_end)


@channel.command(epilog="Example: claudemesh channel share deploys carol")
@click.argument("channel", shell_complete=complete_channel)
@click.argument("member", shell_complete=complete_peer)
@click.option("--limit", default=_MOST, type=click.IntRange(1, _MOST), show_default=True, help="Only the last so many.")
@mesh_option
@verb
def share(verb: Verb, channel: str, member: str, limit: int, mesh: str) -> None:
    """Give a member what is kept here of a channel or @group.

    They get the posts as their authors signed them, and can read them under `channel history`.
    Without this a newcomer reads nothing from before it came.
    """
    name = signed(channel, "#", or_group=True)
    verb.answer(verb.ask("channel.share", mesh=mesh, channel=name, member=member, limit=limit), _shared)


def _history_end(answer: Object) -> Iterator[str]:
    if not answer["count"]:
        yield f"nothing is kept here of {visible(answer['channel']['name'])}"


def _shared(answer: Object) -> Iterator[str]:
    name = visible(answer["channel"]["name"])
    for one in answer["to"]:
        if one["messages"]:
            yield f"shared {_counted(one['messages'])} of {name} with {visible(one['address'])}"
        else:
            yield f"nothing is kept here of {name} that {visible(one['address'])} did not write"


def _counted(posts: int) -> str:
    return "1 post" if posts == 1 else f"{posts:,} posts"
