"""Any text is a link or is refused as one (docs/spec/invite.md)."""

from hypothesis import example, given
from hypothesis import strategies as st

from claudemesh.crypto.invite import InviteLink, parse_link
from claudemesh.errors import LinkRefused

hosts = st.from_regex(r"[a-z0-9-]{1,12}(\.[a-z0-9-]{1,8}){0,2}(:[0-9]{1,5})?", fullmatch=True)
urls = st.builds(lambda scheme, host: f"{scheme}://{host}/ws", st.sampled_from(["ws", "wss"]), hosts)
sockets = st.text("abc/._- é%#", min_size=1, max_size=20).map(lambda path: f"unix:///{path}")
labels = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)
links = st.builds(
    InviteLink,
    broker_url=urls | sockets,
    mesh_prefix=st.binary(min_size=16, max_size=16).map(bytes.hex),
    seed=st.binary(min_size=16, max_size=16),
    user_seed=st.none() | st.binary(min_size=16, max_size=16),
    mesh_label=labels,
    inviter_label=labels,
    joiner_label=labels,
)
GENUINE = InviteLink("wss://broker.example/ws", "5a" * 16, bytes(range(16))).text()


@given(links)
def test_link_is_read_as_it_was_written(link: InviteLink) -> None:
    assert parse_link(link.text()) == link


@given(links, st.lists(st.integers(0, 200), max_size=4), st.sampled_from([" ", "\n", "\r\n", "\t", "\u00a0"]))
def test_line_breaks_and_spaces_inside_a_link_do_not_matter(link: InviteLink, places: list[int], space: str) -> None:
    text = link.text()
    for place in places:
        text = text[: place % len(text)] + space + text[place % len(text) :]

    assert parse_link(text) == link


@given(st.text(max_size=120))
@example("ic://[::1/j#" + "A" * 44)
@example("ic+unix://%ff%00/j#" + "A" * 44)
@example("ic://\ud800/j#" + "A" * 44)
def test_any_text_is_a_link_or_refused(text: str) -> None:
    _parse(text)


@given(st.integers(0, 200), st.integers(0, 3), st.text(max_size=3))
def test_any_edit_of_a_link_is_a_link_or_refused(place: int, cut: int, put: str) -> None:
    start = place % (len(GENUINE) + 1)

    _parse(GENUINE[:start] + put + GENUINE[start + cut :])


def _parse(text: str) -> None:
    """Only `LinkRefused` may come out, and what is accepted can be written and read again."""
    try:
        link = parse_link(text)
    except LinkRefused:
        return
    assert parse_link(link.text()) == link
