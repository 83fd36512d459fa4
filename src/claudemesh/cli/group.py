"""`claudemesh group`: create, list, join, leave, members, add, remove."""

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
from claudemesh.cli.completing import complete_group, complete_peer
from claudemesh.cli.verb import Verb, mesh_option, verb


@click.group(epilog="Example: claudemesh group create reviewers --topic 'who reviews'")
def group() -> None:
    """Create, list, join or leave a group; its members.

    A group is written reviewers or @reviewers. One message reaches its members: `claudemesh send
    @reviewers TEXT`. History is shown and shared by `claudemesh channel history @reviewers`.
    """


@group.command(epilog="Example: claudemesh group create reviewers")
@click.argument("name")
@click.option("--topic", default="", help="What it is for; up to 200 characters.")
@mesh_option
@verb
def create(verb: Verb, name: str, topic: str, mesh: str) -> None:
    """Create a group, with you in it; anybody in the mesh may join."""
    answer = verb.ask("channel.create", mesh=mesh, name=signed(name, "@"), kind="group", topic=topic)
    verb.answer(answer, created_lines)


@group.command("list", epilog="Example: claudemesh group list --json")
@mesh_option
@verb
def list_groups(verb: Verb, mesh: str) -> None:
    """List the groups of a mesh and in which you are."""
    verb.answer(verb.ask("channel.list", mesh=mesh, groups=True), listed_lines)


@group.command(epilog="Example: claudemesh group join reviewers")
@click.argument("group", shell_complete=complete_group)
@mesh_option
@verb
def join(verb: Verb, group: str, mesh: str) -> None:
    """Enter a group: what is sent to it from now on comes here."""
    verb.answer(verb.ask("channel.join", mesh=mesh, channel=signed(group, "@")), joined_lines)


@group.command(epilog="Example: claudemesh group leave reviewers")
@click.argument("group", shell_complete=complete_group)
@mesh_option
@verb
def leave(verb: Verb, group: str, mesh: str) -> None:
    """Leave a group."""
    verb.answer(verb.ask("channel.leave", mesh=mesh, channel=signed(group, "@")), left_lines)


@group.command(epilog="Example: claudemesh group members reviewers")
@click.argument("group", shell_complete=complete_group)
@mesh_option
@verb
def members(verb: Verb, group: str, mesh: str) -> None:
    """List who is in a group."""
    verb.answer(verb.ask("channel.members", mesh=mesh, channel=signed(group, "@")), member_lines)


@group.command(epilog="Example: claudemesh group add reviewers bob")
@click.argument("group", shell_complete=complete_group)
@click.argument("member", shell_complete=complete_peer)
@mesh_option
@verb
def add(verb: Verb, group: str, member: str, mesh: str) -> None:
    """Add a peer, or every peer of a person, to a group."""
    verb.answer(verb.ask("channel.add", mesh=mesh, channel=signed(group, "@"), member=member), added_lines)


@group.command(epilog="Example: claudemesh group remove reviewers bob.phone")
@click.argument("group", shell_complete=complete_group)
@click.argument("member", shell_complete=complete_peer)
@mesh_option
@verb
def remove(verb: Verb, group: str, member: str, mesh: str) -> None:
    """Remove a peer, or every peer of a person, from a group, and replace its secret."""
    verb.answer(verb.ask("channel.remove", mesh=mesh, channel=signed(group, "@"), member=member), removed_lines)
