"""In which channels each recipient of a post sends a receipt."""

from claudemesh.protocol.confirmation import is_confirmed
from claudemesh.protocol.limits import MAX_CONFIRMED
from claudemesh.protocol.roster import EVERYONE, GENERAL, SPACE
from claudemesh.types import ChannelId
from tests.channel_members import team

OPS = ChannelId("0a" * 16)


def test_posts_are_confirmed_one_by_one_while_the_channel_is_small() -> None:
    """One member too many, and none of them sends a receipt: otherwise each post would cost thousands."""
    _, (owner, *others) = team(*(f"m{number}" for number in range(MAX_CONFIRMED + 2)))
    owner.append("chan", chan=OPS, kind="group")
    for other in others[:MAX_CONFIRMED]:
        owner.append("chan_add", chan=OPS, who=other.id)
    full = is_confirmed(owner.roster, OPS)
    owner.append("chan_add", chan=OPS, who=others[MAX_CONFIRMED].id)

    assert full
    assert not is_confirmed(owner.roster, OPS)
    assert not is_confirmed(owner.roster, GENERAL)


def test_names_are_never_confirmed() -> None:
    """Nor is anything else that is not said to people."""
    _, (owner, _) = team("alice", "bob")

    assert is_confirmed(owner.roster, GENERAL)
    assert not any(is_confirmed(owner.roster, channel) for channel in (SPACE, EVERYONE))
