"""`claudemesh channel`: create, list, join, leave, members, add, remove, history, share."""

import click


@click.group(epilog="Example: claudemesh channel create deploys")
def channel() -> None:
    """Create, list, join or leave a channel, and see and change who is in it."""
