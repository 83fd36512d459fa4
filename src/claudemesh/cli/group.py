"""`claudemesh group`: create, list, join, leave, members, add, remove."""

import click


@click.group(epilog="Example: claudemesh group create reviewers")
def group() -> None:
    """Create, list, join or leave a group, whose members one message reaches."""
