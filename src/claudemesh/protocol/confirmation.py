"""In which channels each recipient of a post is accounted for (docs/spec/channels.md §10)."""

from claudemesh.protocol import limits
from claudemesh.protocol.roster import EVERYONE, SPACE, Roster
from claudemesh.types import ChannelId


def is_confirmed(roster: Roster, channel: ChannelId) -> bool:
    """Whether recipients send receipts for a post, and the broker names those that it misses.

    Sender, recipients and broker decide it by the same roster.
    """
    return channel not in (EVERYONE, SPACE) and len(roster.channel_members(channel)) <= limits.MAX_CONFIRMED + 1
