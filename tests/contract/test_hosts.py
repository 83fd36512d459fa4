"""Setting up a host and taking it back: one suite for every adapter that needs no program for it.

Claude Code is set up by its own command; the same promises are tested with the real one in tests/hosts.
"""

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.hosts.base import Host, Place, Scope, Unwritable, host_of, is_set_up
from claudemesh.hosts.seen import note_hook
from claudemesh.hosts.toml_table import MARK
from tests import plugin

FILES = {
    "codex": (".codex/config.toml", ".codex/hooks.json"),
    "gemini": (".gemini/settings.json",),
    "opencode": (".config/opencode/opencode.json",),
}
BEFORE = {
    ".codex/config.toml": b'# mine\nmodel = "o3"\n\n[mcp_servers.other]\ncommand = "x" # keep',
    ".codex/hooks.json": b'{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"true"}]}]}}',
    ".gemini/settings.json": b'{\r\n    "theme": "Dark", "mcpServers": {"other": {"command": "x"}}\r\n}',
    ".config/opencode/opencode.json": b'{\n "autoupdate": false,\n "mcp": {}\n}\n',
}
NAMES = sorted(FILES)
SCOPES: list[Scope] = ["user", "project"]


MARKED = MARK.encode() + b"mcp_servers = 3\n"


def place_of(tmp_path: Path, scope: Scope = "user") -> Place:
    """A user's home and project below a directory of the test."""
    home, project = tmp_path / "home", tmp_path / "project"
    for directory in (home, project):
        directory.mkdir(exist_ok=True)
    return Place(scope, home, project, {"PATH": ""}, ConfigDir(tmp_path / "config"))


def every_file(place: Place) -> dict[str, bytes | None]:
    """All that is below home and project, directories too."""
    found = [path for root in (place.home, place.cwd) for path in root.rglob("*")]
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def fill(place: Place, name: str) -> None:
    """What a user has before."""
    for file in FILES[name]:
        path = place.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BEFORE[file])


@pytest.fixture(params=NAMES)
def host(request: pytest.FixtureRequest) -> Host:
    """Each adapter in turn."""
    return host_of(request.param)


@pytest.mark.parametrize("scope", SCOPES)
def test_uninstall_leaves_nothing_where_nothing_was(host: Host, tmp_path: Path, scope: Scope) -> None:
    """Files and directories that we made are gone again."""
    place = place_of(tmp_path, scope)

    installed = host.install(place)
    between = every_file(place)
    removed = host.uninstall(place)

    assert installed
    assert removed
    assert between != {}
    assert every_file(place) == {}


def test_uninstall_gives_back_every_byte(host: Host, tmp_path: Path) -> None:
    """Comments, line ends and odd indentation included."""
    place = place_of(tmp_path)
    fill(place, host.name)
    before = every_file(place)

    host.install(place)
    between = every_file(place)
    host.uninstall(place)

    assert between != before
    assert every_file(place) == before


def test_a_second_install_has_nothing_to_do(host: Host, tmp_path: Path) -> None:
    """And an update of ours replaces our entries, it does not add to them."""
    place = place_of(tmp_path)
    fill(place, host.name)
    before = every_file(place)
    host.install(place)
    installed = every_file(place)

    again = host.install(place)
    unchanged = every_file(place)
    host.install(place._replace(allows_tools=True))
    host.uninstall(place)

    assert again == []
    assert unchanged == installed
    assert every_file(place) == before


def test_what_others_wrote_since_stays(host: Host, tmp_path: Path) -> None:
    """Of a file that changed after the install, our entries alone are removed."""
    place = place_of(tmp_path)
    fill(place, host.name)
    host.install(place)
    for file in FILES[host.name]:
        path = place.home / file
        if path.suffix == ".toml":
            path.write_text(path.read_text() + "[later]\nx = 1\n")
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"later": 1}))

    host.uninstall(place)

    for file in FILES[host.name]:
        text = (place.home / file).read_text()
        read = tomllib.loads if file.endswith(".toml") else json.loads
        assert "claudemesh" not in text
        expected = read(BEFORE[file].decode())
        found = read(text)
        assert found.pop("later")
        assert {key: value for key, value in found.items() if value} == {k: v for k, v in expected.items() if v}


@pytest.mark.parametrize("content", [b"{ // mine\n}", b'{"a": 1,}', b"{", b"[]", b"\xff\xfe", b'{"a": 1, "a": 2}'])
def test_a_file_that_cannot_be_rewritten_without_loss_is_left_alone(host: Host, tmp_path: Path, content: bytes) -> None:
    """Nothing at all changes, and the error says what to add by hand."""
    place = place_of(tmp_path)
    path = place.home / FILES[host.name][-1]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    before = every_file(place)

    with pytest.raises(Unwritable) as refused:
        host.install(place)

    assert "claudemesh" in refused.value.hint()
    assert every_file(place) == before


@pytest.mark.parametrize("content", [b'{"mcpServers": [], "mcp": [], "hooks": []}', b"[" * 100_000])
def test_a_file_with_something_else_in_the_place_of_ours_is_left_alone(
    host: Host, tmp_path: Path, content: bytes
) -> None:
    """What is valid JSON but no place for an entry is not replaced either."""
    place = place_of(tmp_path)
    path = place.home / FILES[host.name][-1]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(Unwritable):
        host.install(place)

    assert path.read_bytes() == content


@pytest.mark.parametrize("groups", ['{"matcher": "*"}', '"echo hello"', "true"])
def test_a_hook_in_a_form_that_we_do_not_know_is_left_alone(tmp_path: Path, groups: str) -> None:
    """A list can be extended; anything else is somebody's, and says where it stands."""
    place = place_of(tmp_path)
    path = place.home / ".gemini" / "settings.json"
    path.parent.mkdir()
    path.write_text('{"hooks": {"enabled": true, "AfterAgent": ' + groups + "}}")
    before = path.read_bytes()

    with pytest.raises(Unwritable, match=r"hooks\.AfterAgent"):
        host_of("gemini").install(place)

    assert path.read_bytes() == before


def test_a_setting_among_the_hooks_that_is_no_hook_stays(tmp_path: Path) -> None:
    """Only events of ours are extended."""
    place = place_of(tmp_path)
    path = place.home / ".gemini" / "settings.json"
    path.parent.mkdir()
    path.write_text('{"hooks": {"enabled": true}}')

    host_of("gemini").install(place)

    assert json.loads(path.read_text())["hooks"]["enabled"] is True


@pytest.mark.parametrize("content", [b'model = "o3\n', b"\xff", b"mcp_servers = 3\n", b"mcp_servers = {}\n", MARKED])
def test_a_configuration_of_codex_with_no_place_for_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Appending to it could change what the broken part means, or break what was whole."""
    place = place_of(tmp_path)
    path = place.home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(Unwritable):
        host_of("codex").install(place)

    assert path.read_bytes() == content


def test_line_ends_in_a_configuration_of_codex_stay_when_somebody_else_wrote_to_it(tmp_path: Path) -> None:
    """Then our table alone is cut out, and every other byte is as it was."""
    place = place_of(tmp_path)
    path = place.home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_bytes(b'model = "o3"\r\n')
    host_of("codex").install(place)
    with path.open("ab") as file:
        file.write(b"[later]\r\n")

    host_of("codex").uninstall(place)

    assert path.read_bytes() == b'model = "o3"\r\n[later]\r\n'


def test_what_codex_writes_beside_our_table_stays(tmp_path: Path) -> None:
    """Also what it writes below our entry, of the entry, and a comment that is about the next table."""
    place = place_of(tmp_path)
    codex = host_of("codex")
    path = place.home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text('model = "o3"\n[projects."/src"]\ntrust_level = "trusted"\n')
    codex.install(place)
    tools = '\n[mcp_servers.claudemesh.tools.mesh_send]\napproval_mode = "approve"\n'
    path.write_text(path.read_text() + tools + "\n# mine\n[tui]\nseen = [\n  1,\n]\n")
    is_there = is_set_up(codex, place)

    codex.install(place._replace(allows_tools=True))
    codex.uninstall(place)

    assert is_there
    text = path.read_text()
    assert text.startswith('model = "o3"\n[projects."/src"]\ntrust_level = "trusted"\n')
    assert text.endswith("\n# mine\n[tui]\nseen = [\n  1,\n]\n")
    assert "claudemesh" not in text


def test_a_comment_of_ours_without_its_table_is_no_table(tmp_path: Path) -> None:
    """Somebody cut the table out and left the comment: the next install puts it back."""
    place = place_of(tmp_path)
    codex = host_of("codex")
    path = place.home / ".codex" / "config.toml"
    codex.install(place)
    text = path.read_text()
    path.write_text(text[: text.index("[")])

    codex.install(place)

    assert path.read_text() == text


@pytest.mark.parametrize("name", ["codex", "gemini"])
def test_leave_to_use_our_tools_is_given_and_taken_back(name: str, tmp_path: Path) -> None:
    """By installing with and without it: each says that something changes."""
    place, host = place_of(tmp_path), host_of(name)
    changes = [host.install(place._replace(allows_tools=leave)) for leave in (True, True, False, False)]
    without = every_file(place)
    host.uninstall(place)
    host.install(place)

    assert [bool(one) for one in changes] == [True, False, True, False]
    assert every_file(place) == without


def test_a_table_of_ours_that_cannot_be_cut_out_is_left_alone(tmp_path: Path) -> None:
    """A line that only looks like the head of a table: cutting there would lose what is somebody's."""
    place = place_of(tmp_path)
    codex = host_of("codex")
    path = place.home / ".codex" / "config.toml"
    codex.install(place)
    path.write_text('note = """\n[mcp_servers.claudemesh]\nmine\n"""\n' + path.read_text())
    before = path.read_bytes()

    with pytest.raises(Unwritable):
        codex.uninstall(place)

    assert path.read_bytes() == before


def test_what_was_added_by_hand_counts_as_set_up(host: Host, tmp_path: Path) -> None:
    """A file with comments is not read, only searched; without a word of ours the host is not set up."""
    place = place_of(tmp_path)
    path = place.home / FILES[host.name][-1]
    path.parent.mkdir(parents=True)
    path.write_text("{ // mine\n}")
    with pytest.raises(Unwritable) as refused:
        host.install(place)
    before = is_set_up(host, place)
    path.write_text("// mine\n" + refused.value.by_hand)

    after = is_set_up(host, place)

    assert (before, after) == (False, True)


def test_a_link_to_a_settings_file_stays_a_link(tmp_path: Path) -> None:
    """People keep such files in a repository of their own."""
    place = place_of(tmp_path)
    kept = place.home / "dotfiles.json"
    kept.write_text("{}\n")
    path = place.home / ".gemini" / "settings.json"
    path.parent.mkdir()
    path.symlink_to(kept)

    host_of("gemini").install(place)

    assert path.is_symlink()
    assert "claudemesh" in kept.read_text()


def test_settings_that_others_cannot_read_are_at_no_moment_open_to_them(tmp_path: Path) -> None:
    """Hosts keep keys of theirs in there. Before it takes the old one's place a new file is as closed as that."""
    place = place_of(tmp_path)
    fill(place, "gemini")
    settings = place.home / FILES["gemini"][0]
    settings.chmod(0o600)
    seen: list[tuple[str, int]] = []

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("os.chmod", "os.rename") and str(arguments[0]).startswith(str(place.home)):
            found = Path(str(arguments[0])).stat()
            seen.append((event, found.st_mode & 0o777 if found.st_size else 0))

    sys.addaudithook(look)  # stays for good, and looks at this test's directory alone
    previous = os.umask(0o022)
    try:
        host_of("gemini").install(place)
        host_of("gemini").uninstall(place)
    finally:
        os.umask(previous)

    assert [mode for event, mode in seen if event == "os.rename"] == [0o600, 0o600]
    assert {mode for _, mode in seen} <= {0o600, 0}


def test_a_project_cannot_have_a_file_elsewhere_overwritten(tmp_path: Path) -> None:
    """Who clones it and sets up a host there follows no link of the project's to write beside the settings."""
    place = place_of(tmp_path, "project")
    mine = place.home / ".profile"
    mine.write_text("mine\n")
    for name in ("opencode.json", "settings.json", ".mcp.json", "config.toml", "hooks.json"):
        for directory in (place.cwd, place.cwd / ".gemini", place.cwd / ".codex"):
            directory.mkdir(exist_ok=True)
            (directory / f".{name}.claudemesh").symlink_to(mine)

    for name in NAMES:
        host_of(name).install(place)

    assert mine.read_text() == "mine\n"


def test_a_plugin_of_opencode_that_is_not_ours_of_today_is_told_and_replaced(tmp_path: Path) -> None:
    """After an update of ours; what stood there before the first install comes back in the end."""
    place = place_of(tmp_path)
    opencode, plugin_file = host_of("opencode"), place.home / ".config" / "opencode" / "plugin" / "claudemesh.js"
    opencode.install(place)
    installed = plugin_file.read_bytes()
    plugin_file.write_bytes(b"// claudemesh: of yesterday\n")

    problems = opencode.probe(place).problems
    opencode.install(place)
    replaced = plugin_file.read_bytes()
    opencode.uninstall(place)

    assert "claudemesh install opencode" in problems[0]
    assert replaced == installed
    assert opencode.probe(place).problems == ()
    assert not plugin_file.exists()


def test_a_plugin_of_somebody_elses_comes_back(tmp_path: Path) -> None:
    """A file that bears our plugin's name and is not ours is kept, and never removed."""
    place = place_of(tmp_path)
    opencode, plugin_file = host_of("opencode"), place.home / ".config" / "opencode" / "plugin" / "claudemesh.js"
    plugin_file.parent.mkdir(parents=True)
    plugin_file.write_bytes(b"export const Mine = async () => ({})\n")

    untouched = opencode.uninstall(place)
    opencode.install(place)
    opencode.uninstall(place)

    assert untouched == []
    assert plugin_file.read_bytes() == b"export const Mine = async () => ({})\n"


def test_opencode_is_given_our_settings_for_one_run_beside_those_it_was_given(tmp_path: Path) -> None:
    """Where they cannot be read they stay as they are; where it is set up, nothing is given."""
    place = place_of(tmp_path)
    opencode = host_of("opencode")
    theirs = {"CONTENT": '{"model": "a/b", "plugin": ["x"]}', "BROKEN": "{"}

    content = place._replace(environment={"PATH": "", "OPENCODE_CONFIG_CONTENT": theirs["CONTENT"]})
    broken = place._replace(environment={"PATH": "", "OPENCODE_CONFIG_CONTENT": theirs["BROKEN"]})
    given = json.loads(opencode.started_with(content, ["opencode"]).environment["OPENCODE_CONFIG_CONTENT"])
    opencode_as_it_is = opencode.started_with(broken, ["opencode"])
    commented = place.home / ".config" / "opencode" / "opencode.jsonc"
    commented.parent.mkdir(parents=True)
    commented.write_text("{ // mine\n}\n")
    beside_comments = opencode.started_with(place, ["opencode"])
    commented.unlink()
    opencode.install(place)

    assert given["model"] == "a/b"
    assert given["plugin"][0] == "x"
    assert given["plugin"][1].startswith("file:///")
    assert given["mcp"]["claudemesh"]["command"][-3:] == ["mcp", "--host", "opencode"]
    assert opencode_as_it_is == (["opencode"], {})
    assert "claudemesh" in beside_comments.environment["OPENCODE_CONFIG_CONTENT"]
    assert opencode.started_with(place, ["opencode"]) == (["opencode"], {})


def test_untrusted_hooks_of_codex_are_a_problem_that_is_told(tmp_path: Path) -> None:
    """Codex skips them without a word; that they never ran is what shows it."""
    place = place_of(tmp_path)
    codex = host_of("codex")
    before = codex.probe(place).problems
    codex.install(place)

    problems = codex.probe(place).problems
    note_hook(place.config, "codex")

    assert before == ()
    assert "/hooks" in problems[0]
    assert codex.probe(place).problems == ()


def test_doctor_finds_what_was_set_up_with_more_leave(host: Host, tmp_path: Path) -> None:
    """Whether tools need permission is not what being set up means."""
    place = place_of(tmp_path, "user")
    host.install(place._replace(allows_tools=True))

    assert host.probe(place).is_set_up


def test_the_plugin_has_the_hooks_of_the_code() -> None:
    """They are written by `python -m tests.plugin`."""
    assert plugin.HOOKS.read_text() == plugin.hooks()
