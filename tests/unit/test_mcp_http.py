"""What an operator and a client may say to the HTTP server of MCP, and what a token has to be."""

from pathlib import Path

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.errors import LocalError, UsageError
from claudemesh.listen import Listen
from claudemesh.mcp.http.settings import MAX_CLIENTS, Settings, options_of_url, session_key
from claudemesh.mcp.http.shares import Shares
from claudemesh.mcp.http.tokens import Tokens, load_tokens, token_file
from claudemesh.mcp.options import Options


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("localhost:7910", "localhost", 7910, True),
        ("[::1]:7910", "::1", 7910, True),
        ("0.0.0.0:7910", "0.0.0.0", 7910, False),
        ("[::]:7910", "::", 7910, False),
        ("box.local:65535", "box.local", 65_535, False),
    ],
)
def test_an_address_is_read_and_known_to_be_loopback_or_not(text: str, host: str, port: int, is_loopback: bool) -> None:
    """A name of which we cannot know where it leads is not loopback."""
    address = Listen.parse(text)

    assert address == Listen(host, port)
    assert address.is_loopback is is_loopback


@pytest.mark.parametrize(
    "text",
    ["", "7910", ":7910", "host:", "host:x", "host:65536", "host:-1", "host:\u0663", f"host:{'9' * 5_000}"],
    ids=lambda text: text[:12],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError):
        Listen.parse(text)


def test_on_loopback_only_its_own_names_are_answered_for() -> None:
    """A page whose name points here says another one, and a page of another port is another origin."""
    settings = _settings("127.0.0.1:7910", allowed_hosts=("host.docker.internal:7910",))

    assert settings.hosts(7910) == ["127.0.0.1:7910", "localhost:7910", "[::1]:7910", "host.docker.internal:7910"]
    assert "http://localhost:7910" in settings.origins(7910)
    assert "http://localhost:3000" not in settings.origins(7910)


def test_a_client_alone_has_all_the_places() -> None:
    """Nothing is kept for nobody."""
    shares = Shares(10, 8, ["one"])

    taken = [shares.take("one") for _ in range(11)]

    assert taken == [True] * 10 + [False]


@pytest.mark.parametrize("number", [2, 3, 7, 10])
def test_whatever_the_others_take_each_client_has_its_reserve(number: int) -> None:
    """In whatever order they come; and no more than there is."""
    names = [str(one) for one in range(number)]
    shares = Shares(10, 3, names)
    reserve = min(3, 10 // number)

    for name in reversed(names):
        while shares.take(name):
            pass

    assert all(shares.of(name) >= reserve for name in names)
    assert sum(map(shares.of, names)) == 10


def test_a_place_that_was_given_back_is_for_whoever_comes() -> None:
    """As soon as it is free."""
    shares = Shares(2, 0, ["one", "two"])
    taken = [shares.take("one"), shares.take("one"), shares.take("two")]

    shares.give_back("one")

    assert taken == [True, True, False]
    assert shares.take("two")


def test_each_of_as_many_clients_as_a_server_has_gets_a_session() -> None:
    """One more is refused at the start."""
    names = tuple(f"c{number}" for number in range(MAX_CLIENTS + 1))

    with pytest.raises(UsageError, match="64 clients at most"):
        Settings(Listen("127.0.0.1", 7910), names, Options()).check()

    Settings(Listen("127.0.0.1", 7910), names[1:], Options()).check()


@pytest.mark.parametrize(
    ("listen", "more", "said"),
    [
        ("192.168.1.2:7910", {}, "--allow-remote"),
        ("192.168.1.2:7910", {"allow_remote": True}, "--allow-host"),
        ("127.0.0.1:7910", {"allowed_hosts": ("*",)}, "--allow-host"),
        ("127.0.0.1:7910", {"allowed_hosts": ("box:*",)}, "--allow-host"),
        ("127.0.0.1:7910", {"clients": ("../x",)}, "--client"),
        ("127.0.0.1:7910", {"clients": ("",)}, "--client"),
    ],
)
def test_settings_that_are_not_safe_are_refused(listen: str, more: dict[str, object], said: str) -> None:
    """Among them names that the SDK would take for patterns, and names of files elsewhere."""
    with pytest.raises(UsageError, match=said):
        _settings(listen, **more).check()


def test_a_url_says_what_a_command_line_says() -> None:
    """What it leaves out is as the server was started; the last resort for a label is the client's name."""
    defaults = Options(mesh="team", tags=("a=b",))

    assert options_of_url("", defaults, "ide") == Options(label="ide", mesh="team", tags=("a=b",))
    assert options_of_url("label=api&tag=x%3Dy&tag=c=d&peers-as-tools", defaults, "ide") == Options(
        label="api", mesh="team", tags=("x=y", "c=d"), peers_as_tools=True
    )


@pytest.mark.parametrize("query", ["lable=x", "host=claude-code", "label=a&label=b", "peers-as-tools=no", "key=1"])
def test_a_url_that_says_something_else_is_refused(query: str) -> None:
    """A misspelt word is not ignored, and no client chooses its host or key."""
    with pytest.raises(UsageError):
        options_of_url(query, Options(), "ide")


def test_an_agent_of_the_2026_protocol_is_its_client_and_url() -> None:
    """The same after a restart, another one for another client or URL."""
    keys = [session_key(client, Options(label=label)) for client in ("a", "b") for label in ("x", "y")]

    assert len(set(keys)) == 4
    assert session_key("a", Options(label="x")) == keys[0]


async def test_each_token_is_its_clients_and_kept_in_a_private_file(tmp_path: Path) -> None:
    """Made once; what the check passes on holds no secret."""
    config = ConfigDir(tmp_path)
    tokens = load_tokens(config, ["ide", "container"])
    check = Tokens(tokens)

    found = await check.verify_token(tokens["container"])

    assert load_tokens(config, ["ide", "container"]) == tokens
    assert tokens["ide"] != tokens["container"]
    assert token_file(config, "ide").stat().st_mode & 0o777 == 0o600
    assert found is not None
    assert found.client_id == "container"
    assert tokens["container"] not in repr(found)
    assert await check.verify_token("") is None
    assert await check.verify_token(tokens["ide"] + "\u00ff") is None


@pytest.mark.parametrize(
    "content", ["", "short", "x" * 31, "has a space in it, which no header would survive", "\u00e4" * 40]
)
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: str) -> None:
    """An empty one would let everybody in who says nothing."""
    config = ConfigDir(tmp_path)
    load_tokens(config, ["ide"])
    token_file(config, "ide").write_text(content)

    with pytest.raises(LocalError, match="config_damaged"):
        load_tokens(config, ["ide"])


def _settings(listen: str, **more: object) -> Settings:
    return Settings(**{"listen": Listen.parse(listen), "clients": ("ide",), "options": Options(), **more})  # type: ignore[arg-type]
