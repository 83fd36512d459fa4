"""Bodies of the messages that serve channels: exact, bounded, and without names that deceive."""

import msgspec
import pytest

from claudemesh.crypto.statements import Statement
from claudemesh.errors import Malformed, UsageError
from claudemesh.peer import channel_contents, contents
from claudemesh.peer.channel_contents import Evidenced, Listing
from claudemesh.peer.contents import Nack, Profile, SessionLabel
from claudemesh.types import ChannelId, Digest, MessageId, UnixMillis

CHANNEL = ChannelId("c1" * 16)
EPOCH = Digest("e0" * 32)


def test_a_directory_carries_names_and_topics() -> None:
    """A topic is for people and may be in any script; a name may not."""
    listings = [Listing(CHANNEL, "deploys", 5, "was rausgeht"), Listing("c2" * 16, "ops", 6)]

    assert channel_contents.read_directory(channel_contents.write_directory(listings)) == listings


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"v":1,"c":[]}',
        b'{"v":1,"c":[{"id":"c1","name":"ops","at":1}]}',
        b'{"v":1,"c":[{"id":"' + b"c1" * 16 + b'","name":"Ops","at":1}]}',
        b'{"v":1,"c":[{"id":"' + b"c1" * 16 + b'","name":"ops","at":-1}]}',
        b'{"v":1,"c":[{"id":"' + b"c1" * 16 + b'","name":"ops","at":1,"topic":"a\\u202eb"}]}',
        b'{"v":1,"c":[{"id":"' + b"c1" * 16 + b'","name":"ops","at":1,"topic":"' + b"x" * 201 + b'"}]}',
    ],
)
def test_what_is_no_directory_is_refused(body: bytes) -> None:
    """As a whole: a name that hides something discredits the rest."""
    with pytest.raises(Malformed):
        channel_contents.read_directory(body)


def test_a_nack_about_an_epoch_names_it_and_no_other_nack_does() -> None:
    """So that one about a message is never taken for a question about a secret."""
    about_epoch = Nack(MessageId("e0" * 16), "no_epoch_key", EPOCH)

    assert contents.read_nack(contents.write_nack(about_epoch)) == about_epoch
    for wrong in (Nack(MessageId("e0" * 16), "no_epoch_key"), Nack(MessageId("e0" * 16), "stale_key", EPOCH)):
        with pytest.raises(Malformed):
            contents.read_nack(contents.write_nack(wrong))


def test_past_posts_are_split_so_that_each_part_fits_into_a_message() -> None:
    """In their order; each part with the attestations that it needs, once; what is too large is left out."""
    statement = Statement("{}", "k" * 64, "s" * 128)
    posts = [Evidenced(bytes([n]) * 100_000, b"sig", "att", statement, UnixMillis(n)) for n in range(5)]
    huge = Evidenced(b"h" * 400_000, b"sig", "att", statement, UnixMillis(9))

    parts = [channel_contents.read_past(body) for body in channel_contents.write_pasts(CHANNEL, [*posts, huge])]

    assert [len(part.p) for part in parts] == [2, 2, 1]
    assert [post.f[0] for part in parts for post in part.p] == [0, 1, 2, 3, 4]
    assert all(part.att == [statement] and part.chan == CHANNEL for part in parts)


def test_tags_travel_in_the_profile_and_cost_nothing_where_there_are_none() -> None:
    """A peer without them sends the bytes that it always sent."""
    tagged = Profile("alice", "box", [SessionLabel("5a" * 32, "api", ["repo=billing", "lang=zig"])])
    plain = Profile("alice", "box", [SessionLabel("5a" * 32, "api")])

    assert contents.read_profile(contents.write_profile(tagged)) == tagged
    assert b"tags" not in contents.write_profile(plain)


@pytest.mark.parametrize(
    "tag", ["repo", "=x", "repo=", "Repo=x", "a b=c", "repo=a b", "repo=a=b", "r=" + "x" * 65, "r=\u200b"]
)
def test_what_is_no_tag_is_refused_from_a_person_and_from_a_peer(tag: str) -> None:
    """`key=value`, both visible, neither with a separator."""
    profile = msgspec.json.encode(Profile("alice", "box", [SessionLabel("5a" * 32, "api", [tag])]))

    with pytest.raises(UsageError):
        contents.require_tags([tag])
    with pytest.raises(Malformed):
        contents.read_profile(profile)
