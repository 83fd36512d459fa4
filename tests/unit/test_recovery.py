"""Recovery keys survive paper: they are read as they were meant, and a slip is noticed."""

import random

import pytest

from claudemesh.errors import UsageError
from claudemesh.peer.recovery import read_recovery, recovery_key, write_recovery

SECRET = bytes(range(16))


def test_a_recovery_key_has_eight_groups_and_is_read_back() -> None:
    """Upper case or lower, with dashes, spaces or nothing between."""
    words = write_recovery(SECRET)

    assert [len(group) for group in words.split("-")] == [4] * 8
    for spelling in (words, words.lower(), words.replace("-", " "), words.replace("-", "")):
        assert read_recovery(spelling) == SECRET


def test_letters_that_look_like_digits_are_read_as_those() -> None:
    """O is 0, I and L are 1; none of them is ever written."""
    written = "".join(write_recovery(random.Random(seed).randbytes(16)) for seed in range(200))

    assert not set("OILU") & set(written)
    for seed in range(20):
        secret = random.Random(seed).randbytes(16)
        words = write_recovery(secret)
        assert read_recovery(words.replace("0", "O").replace("1", "l")) == secret


def test_every_slip_of_one_character_is_noticed() -> None:
    """Four bytes of digest stand beside the sixteen."""
    words = write_recovery(SECRET)

    for position, character in enumerate(words):
        if character == "-":
            continue
        slip = words[:position] + ("Z" if character != "Z" else "Y") + words[position + 1 :]
        with pytest.raises(UsageError):
            read_recovery(slip)


@pytest.mark.parametrize("text", ["", "ABCD", "U" * 32, "A" * 31, "A" * 33])
def test_what_is_no_recovery_key_is_refused(text: str) -> None:
    """Before anything is derived from it."""
    with pytest.raises(UsageError):
        read_recovery(text)


def test_the_key_is_derived_and_not_the_secret_itself() -> None:
    """The same paper gives the same key."""
    assert recovery_key(SECRET) == recovery_key(SECRET)
    assert recovery_key(SECRET).public != recovery_key(bytes(16)).public
