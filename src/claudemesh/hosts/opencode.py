"""opencode: a plugin of ours inside it, which knows its sessions and reaches them by opencode's own client.

The rungs, each measured with the real program in tests/hosts (docs/hosts/opencode.md):

    busy       tool.execute.after                 added to what the tool returned: in the very next request
    turn ends  session.idle, then promptAsync     the session goes on with a prompt that says who wrote it
    prompt     chat.message                       a part of its own beside the user's prompt
    begins     the first chat.message             the same
    idle       news of the daemon, promptAsync    as at the end of a turn

The plugin (`opencode_plugin.js`) only carries: it reports events as a hook process would (`hooks`), puts the answer
where it belongs, and marks what it put, so that the conversation itself shows what became of it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.hosts.base import SERVER, Change, Place, Probe, Start, Unwritable, find_program, version_of
from claudemesh.hosts.hooks import ATTACH, HookCall, HookTable, Shown
from claudemesh.hosts.seen import forget, remember
from claudemesh.hosts.settings import Kept, load, save, with_server, without_server, write
from claudemesh.hosts.settling import open_offers, settle

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

NAME: Final = "opencode"
MEASURED_VERSIONS: Final = ("1.18.33",)
FILES: Final = ("opencode.jsonc", "opencode.json")
TIMEOUT_MS: Final = 600_000
PLUGIN: Final = Path(__file__).with_name("opencode_plugin.js")
OURS: Final = b"// claudemesh:"
"""How our plugin begins, of whatever version it is."""
SCHEMA: Final = "https://opencode.ai/config.json"
"""opencode writes it into settings that lack it; what it has touched would not be taken for ours alone."""
CONTENT: Final = "OPENCODE_CONFIG_CONTENT"
"""Settings for one run, besides those in files."""
MOMENTS: Final[dict[str, Moment | None]] = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "prompt",
    "PreToolUse": None,
    "PostToolUse": "tool",
    "Stop": "turn_end",
    "Wake": "idle_wake",
    ATTACH: None,
}
"""`PreToolUse`: one server of ours serves every session of a process, and this one is about to call it."""
PUSHED: Final = "Your user did not write this: claudemesh hands you what another agent sent.\n\n"
OUTDATED: Final = "its plugin is not the one of this version of claudemesh: `claudemesh install opencode` replaces it"


# In the daemon


def _show(call: HookCall, text: str) -> Shown:
    is_prompt = call.event in ("Stop", "Wake")
    return Shown(PUSHED + text if text and is_prompt else text)


async def _evidence(session: AgentSession, call: HookCall) -> None:
    """Nothing is concluded from an event alone: a turn that failed ends like one that did not."""
    if call.record is not None:
        await settle(session, await open_offers(session, NAME), call.record, withdraws=True)


def _reach(call: HookCall) -> Reach:
    return "wakeable" if call.is_interactive else "tool"


def _begin(daemon: "Daemon", call: HookCall) -> None:
    remember(daemon.config, NAME, call.session, {"process": str(call.process)})


def _end(daemon: "Daemon", call: HookCall) -> None:
    forget(daemon.config, NAME, call.session)


HOOKS: Final = HookTable(MOMENTS, _show, _evidence, _reach, begin=_begin, end=_end)


# On the command line


class OpenCode:
    """Sets up opencode: it has no command that adds a server or a file of its own as a plugin without asking."""

    name = NAME
    title = "opencode"

    def probe(self, place: Place) -> Probe:
        """Look for the program and our entries."""
        program = find_program(place, "opencode")
        version = version_of(place, program)
        is_there = _has_server(place) and plugin_file(place).exists()
        problems = (OUTDATED,) if is_there and _bytes(plugin_file(place)) != PLUGIN.read_bytes() else ()
        return Probe(program, version, version in MEASURED_VERSIONS, is_there, "wakeable", problems)

    def changes(self, place: Place) -> list[Change]:
        """What is missing."""
        wanted, settings = [], load(settings_file(place), _by_hand(place))
        if with_server(settings, "mcp", _server(place)) != settings:
            wanted.append(Change(str(settings_file(place)), f"the server {SERVER}"))
        if _bytes(plugin_file(place)) != PLUGIN.read_bytes():
            wanted.append(Change(str(plugin_file(place)), "a plugin that shows a session what came"))
        return wanted

    def install(self, place: Place) -> list[Change]:
        """Add what is missing."""
        wanted = self.changes(place)
        if not wanted:
            return []
        kept = Kept(place, NAME)
        if kept.exists:
            self.uninstall(place)
        path = settings_file(place)
        with kept.changing([path, plugin_file(place)]):
            settings = load(path, _by_hand(place)) or {"$schema": SCHEMA}
            save(path, with_server(settings, "mcp", _server(place)))
            write(plugin_file(place), PLUGIN.read_bytes())
        return wanted

    def uninstall(self, place: Place) -> list[Change]:
        """Put back what was found, or remove our entries alone."""
        before = self._present(place)
        if not before:
            return []
        Kept(place, NAME).restore()
        settings = load(settings_file(place), "")
        if without_server(settings, "mcp") != settings:
            save(settings_file(place), without_server(settings, "mcp"))
        if _bytes(plugin_file(place)).startswith(OURS):
            plugin_file(place).unlink()
        return before

    def started_with(self, place: Place, words: list[str]) -> Start:
        """As it is where it is set up; else with server and plugin as settings for one run."""
        settings = _given(place)
        if settings is None or self._is_there(place):
            return Start(words)
        content = with_server(settings, "mcp", _server(place))
        content["plugin"] = [*content.get("plugin", []), PLUGIN.as_uri()]
        return Start(words, {CONTENT: json.dumps(content)})

    def _is_there(self, place: Place) -> bool:
        """Whether everything is set up; where the plugin is, settings that we cannot read have the server, too."""
        try:
            return plugin_file(place).exists() and _has_server(place)
        except Unwritable:
            return True

    def _present(self, place: Place) -> list[Change]:
        present = []
        if _has_server(place):
            present.append(Change(str(settings_file(place)), "our server removed"))
        if _bytes(plugin_file(place)).startswith(OURS):
            present.append(Change(str(plugin_file(place)), "our plugin removed"))
        return present


HOST: Final = OpenCode()


def settings_file(place: Place) -> Path:
    """The file that is there, else the one that we make."""
    directory = place.cwd if place.scope == "project" else _directory(place)
    found = [directory / name for name in FILES if (directory / name).exists()]
    return found[0] if found else directory / "opencode.json"


def plugin_file(place: Place) -> Path:
    """Where opencode finds a plugin by itself."""
    return _directory(place) / "plugin" / "claudemesh.js"


def _directory(place: Place) -> Path:
    if place.scope == "project":
        return place.cwd / ".opencode"
    named = place.environment.get("XDG_CONFIG_HOME")
    return (Path(named) if named else place.home / ".config") / "opencode"


def _server(place: Place) -> dict[str, Any]:
    command = place.command("mcp", "--host", NAME)
    return {"type": "local", "command": command, "enabled": True, "timeout": TIMEOUT_MS}


def _has_server(place: Place) -> bool:
    settings = load(settings_file(place), _by_hand(place))
    return without_server(settings, "mcp") != settings


def _given(place: Place) -> dict[str, Any] | None:
    """The settings that somebody gave for one run already; None when they are not ours to change."""
    try:
        found = json.loads(place.environment.get(CONTENT) or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _by_hand(place: Place) -> str:
    return json.dumps({"mcp": {SERVER: _server(place)}, "plugin": [PLUGIN.as_uri()]}, indent=2)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
