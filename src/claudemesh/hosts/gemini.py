"""Gemini CLI: hooks under names of its own; no way is known to wake an idle session. docs/hosts/gemini.md."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.hosts.base import SERVER, Change, Place, Probe, Start, find_program, is_set_up, version_of
from claudemesh.hosts.hooks import HookCall, HookTable, Shown, context_of, go_on
from claudemesh.hosts.json_hooks import has_hooks, with_hooks, without_hooks
from claudemesh.hosts.records.gemini import was_stopped
from claudemesh.hosts.seen import last_hook, remember
from claudemesh.hosts.settings import Kept, load, save, with_server, without_server
from claudemesh.hosts.settling import settle_by_record

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

NAME: Final = "gemini"
MEASURED_VERSIONS: Final = ("0.61.0",)
HOOK_TIMEOUT_MS: Final = 10_000
MOMENTS: Final[dict[str, Moment]] = {
    "SessionStart": "session_start",
    "BeforeAgent": "prompt",
    "AfterTool": "tool",
    "AfterAgent": "turn_end",
}
TRUST: Final = (
    "no hook of ours has run yet in Gemini CLI, which reads servers and hooks in trusted folders alone:"
    " answer its question, or use /permissions"
)


def _reach(call: HookCall) -> Reach:
    return "turn"


def _show(call: HookCall, text: str) -> Shown:
    return go_on(text) if call.event == "AfterAgent" else context_of(call, text)


async def _evidence(session: AgentSession, call: HookCall) -> None:
    """By its record alone: `AfterAgent` comes at the end of a turn that failed or was interrupted, too."""
    begins = call.event == "SessionStart"
    if not await settle_by_record(session, NAME, call.transcript, begins=begins) and begins:
        await session.doubt_handed()


def _is_stopped(call: HookCall) -> bool:
    """What such a turn would go on with is cancelled with it, and its end comes again at once, without end."""
    return call.event == "AfterAgent" and was_stopped(Path(call.transcript))


def _begin(daemon: "Daemon", call: HookCall) -> None:
    facts = {"process": str(call.process), "transcript": call.transcript}
    remember(daemon.config, NAME, call.session, facts)


HOOKS: Final = HookTable(
    MOMENTS, _show, _evidence, _reach, begin=_begin, is_stopped=_is_stopped, prompts=frozenset({"turn_end"})
)


class Gemini:
    """Sets up Gemini CLI: server and hooks stand in one file, so that it is written once, by us."""

    name = NAME
    title = "Gemini CLI"

    def probe(self, place: Place) -> Probe:
        """Look for the program and our entries."""
        program = find_program(place, "gemini")
        version = version_of(place, program)
        is_there = is_set_up(self, place)
        problems = (TRUST,) if is_there and not last_hook(place.config, NAME) else ()
        return Probe(program, version, version in MEASURED_VERSIONS, is_there, "turn", problems)

    def changes(self, place: Place) -> list[Change]:
        """What is missing."""
        settings = load(settings_file(place), _by_hand(place))
        if _with_ours(settings, place) == settings:
            return []
        return [Change(str(settings_file(place)), f"the server {SERVER}; hooks for {', '.join(MOMENTS)}")]

    def install(self, place: Place) -> list[Change]:
        """Add what is missing."""
        wanted = self.changes(place)
        if not wanted:
            return []
        kept = Kept(place, NAME)
        if kept.exists:
            self.uninstall(place)
        with kept.changing([settings_file(place)]):
            save(settings_file(place), _with_ours(load(settings_file(place), _by_hand(place)), place))
        return wanted

    def uninstall(self, place: Place) -> list[Change]:
        """Put back what was found, or remove our entries alone."""
        if not _has_ours(load(settings_file(place), "")):
            return []
        Kept(place, NAME).restore()
        settings = load(settings_file(place), "")
        if _has_ours(settings):
            save(settings_file(place), _without_ours(settings))
        return [Change(str(settings_file(place)), "our entries removed")]

    def started_with(self, place: Place, words: list[str]) -> Start:
        """As it is: Gemini takes no server on its command line."""
        return Start(words)


HOST: Final = Gemini()


def settings_file(place: Place) -> Path:
    """Where servers and hooks are."""
    if place.scope == "project":
        return place.cwd / ".gemini" / "settings.json"
    return Path(place.environment.get("GEMINI_CLI_HOME") or place.home) / ".gemini" / "settings.json"


def own_hooks(place: Place) -> dict[str, dict[str, Any]]:
    """Our hook for each event; one at the end of a session says that it ended."""
    command = shlex.join(place.command("hook", NAME))
    hook = {"name": SERVER, "type": "command", "command": command, "timeout": HOOK_TIMEOUT_MS}
    return {event: {"matcher": "*", "hooks": [hook]} for event in (*MOMENTS, "SessionEnd")}


def _server(place: Place) -> dict[str, Any]:
    program, *arguments = place.command("mcp", "--host", NAME)
    found: dict[str, Any] = {"command": program, "args": arguments, "timeout": 600_000}
    # Gemini keeps names that look like secrets from a server; ours have none in them, and are passed on.
    return found | ({"trust": True} if place.allows_tools else {})


def _with_ours(settings: dict[str, Any], place: Place) -> dict[str, Any]:
    return with_hooks(with_server(settings, "mcpServers", _server(place)), own_hooks(place), NAME)


def _without_ours(settings: dict[str, Any]) -> dict[str, Any]:
    return without_hooks(without_server(settings, "mcpServers"), NAME)


def _has_ours(settings: dict[str, Any]) -> bool:
    return has_hooks(settings, NAME) or without_server(settings, "mcpServers") != settings


def _by_hand(place: Place) -> str:
    return json.dumps(_with_ours({}, place), indent=2)
