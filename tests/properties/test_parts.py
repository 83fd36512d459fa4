"""A message in parts: whatever it holds, each part fits, and together they are the message."""

from hypothesis import example, given
from hypothesis import strategies as st

from claudemesh.daemon.agents.composing import MIN_LIMIT_CHARACTERS, REPLY_TOOL, fit, room_for_blocks, units
from claudemesh.daemon.rendering import BODY_PREFIX, MessageView

HOSTILE = st.text(st.sampled_from("a\n\r\t\u202e\x1b\u200b<🜂e\u0301 |-"), max_size=6_000)


def view(text: str) -> MessageView:
    """A message whose every label is as long as a label can be."""
    long = "w" * 200
    return MessageView(
        id="f0" * 16,
        sender=f"{long}/{long}",
        fingerprint="f0" * 8,
        trust="another user, whose key is the one first seen under this name",
        mesh=long,
        priority="next",
        sent_at=1_795_000_000_000,
        text=text,
        reply_to="f0" * 16,
        channel=f"#{long}~{long}",
        missing=999_999,
        stale=True,
        shared_by=long,
        note="it may have been shown to you before",
    )


@given(text=HOSTILE | st.text(max_size=3_000), limit=st.integers(MIN_LIMIT_CHARACTERS, 12_000))
@example(text="", limit=MIN_LIMIT_CHARACTERS)
@example(text="\u202e" * 9_000, limit=MIN_LIMIT_CHARACTERS)
@example(text="🜂" * 9_000, limit=MIN_LIMIT_CHARACTERS)
@example(text="\n" * 9_000, limit=9_500)
def test_the_parts_of_a_message_fit_and_are_complete(text: str, limit: int) -> None:
    """No part is larger than the host takes at once, none is empty, and none is left out."""
    room, begins, parts = room_for_blocks(limit), 0, 0
    while begins < len(text) or not parts:
        piece = fit(view(text), REPLY_TOOL, room, begins)
        assert piece is not None
        assert units(piece.text) <= room
        assert piece.begins == begins
        assert piece.ends > begins or not text
        begins, parts = piece.ends, parts + 1

    assert begins == len(text)


@given(text=HOSTILE, begins=st.integers(0, 200))
def test_only_the_body_of_a_part_is_the_senders(text: str, begins: int) -> None:
    """Where a part begins is for us to say: every line of the body keeps its mark."""
    whole = fit(view("x" * begins + text), REPLY_TOOL, 10**6, begins)

    assert whole is not None
    lines = whole.text.split("\n")
    body = [index for index, line in enumerate(lines) if line.startswith(BODY_PREFIX)]
    assert body == list(range(body[0], body[-1] + 1))
    assert lines[0].startswith("--- message ")
    assert lines[-1].startswith("--- end of message ")
    assert sum(line.startswith("---") for line in lines) == 2
