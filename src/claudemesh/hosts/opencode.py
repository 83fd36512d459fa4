"""opencode: our server alone; a message reaches its session when that asks. docs/hosts.md §6.

It has no hooks of a kind that we can call, and tells a server not which session it serves, so that its own API for
pushing into a session (`POST /session/ID/prompt_async`) cannot be used without guessing.
"""

import json
from pathlib import Path
from typing import Any, Final

from claudemesh.hosts.base import SERVER, Change, Place, Probe, find_program, version_of
from claudemesh.hosts.settings import Kept, load, save, with_server, without_server

NAME: Final = "opencode"
MEASURED_VERSIONS: Final = ("1.18.33",)
FILES: Final = ("opencode.jsonc", "opencode.json")
TIMEOUT_MS: Final = 600_000


class OpenCode:
    """Sets up opencode: it has no command that adds a server without asking."""

    name = NAME
    title = "opencode"

    def probe(self, place: Place) -> Probe:
        """Look for the program and our entry."""
        program = find_program(place, "opencode")
        version = version_of(place, program) if program else ""
        return Probe(program, version, version in MEASURED_VERSIONS, not self.changes(place), "asked")

    def changes(self, place: Place) -> list[Change]:
        """What is missing."""
        settings = load(settings_file(place), _by_hand(place))
        if with_server(settings, "mcp", _server(place)) == settings:
            return []
        return [Change(str(settings_file(place)), f"the server {SERVER}")]

    def install(self, place: Place) -> list[Change]:
        """Add what is missing."""
        wanted = self.changes(place)
        if not wanted:
            return []
        kept = Kept(place, NAME)
        if kept.exists:
            self.uninstall(place)
        path = settings_file(place)
        kept.keep([path])
        try:
            save(path, with_server(load(path, _by_hand(place)), "mcp", _server(place)))
        finally:
            kept.seal()
        return wanted

    def uninstall(self, place: Place) -> list[Change]:
        """Put back what was found, or remove our entry alone."""
        path = settings_file(place)
        settings = load(path, "")
        if without_server(settings, "mcp") == settings:
            return []
        Kept(place, NAME).restore()
        settings = load(path, "")
        if without_server(settings, "mcp") != settings:
            save(path, without_server(settings, "mcp"))
        return [Change(str(path), "our server removed")]

    def started_with(self, place: Place, words: list[str]) -> list[str]:
        """As it is: opencode takes no server on its command line."""
        return words


HOST: Final = OpenCode()


def settings_file(place: Place) -> Path:
    """The file that is there, else the one that we make."""
    directory = place.cwd
    if place.scope == "user":
        named = place.environment.get("XDG_CONFIG_HOME")
        directory = (Path(named) if named else place.home / ".config") / "opencode"
    found = [directory / name for name in FILES if (directory / name).exists()]
    return found[0] if found else directory / "opencode.json"


def _server(place: Place) -> dict[str, Any]:
    command = place.command("mcp", "--host", NAME)
    return {"type": "local", "command": command, "enabled": True, "timeout": TIMEOUT_MS}


def _by_hand(place: Place) -> str:
    return json.dumps({"mcp": {SERVER: _server(place)}}, indent=2)
