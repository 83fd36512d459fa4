"""Claude Code: hooks that call our running server, a bell that wakes an idle session, its record as evidence.

The rungs, each measured with the real program in tests/hosts (docs/hosts/claude-code.md):

    busy       PostToolUse hook (type mcp_tool)           additional context of the very next request
    turn ends  Stop hook (mcp_tool)                       additional context; the turn goes on
    prompt     UserPromptSubmit hook (mcp_tool)           additional context of the user's own prompt
    begins     SessionStart hook (a process)              additional context; arms the watcher of the bell
    idle       FileChanged hook with asyncRewake          the daemon writes the bell file; standard error, exit code 2
"""

import asyncio
import contextlib
import hashlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.daemon.config_dir import PRIVATE_DIRECTORY, ConfigDir
from claudemesh.hosts.base import SERVER, Change, Place, Probe, Start, find_program, is_set_up, run_program, version_of
from claudemesh.hosts.hooks import HookCall, HookTable, Shown, confirm_by_event, context_of
from claudemesh.hosts.json_hooks import TOOL, with_hooks, without_hooks
from claudemesh.hosts.processes import attend as watch
from claudemesh.hosts.seen import forget, remember, remembered
from claudemesh.hosts.settings import Kept, load, save
from claudemesh.hosts.settling import settle_by_record

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

NAME: Final = "claude-code"
MEASURED_VERSIONS: Final = ("2.1.330", "2.1.197")
BELL: Final = "claudemesh.bell"
"""One name in a directory per session: a FileChanged hook is chosen by the name of the file."""
RING_AFTER_S: Final = (0.0, 3.0, 10.0, 30.0)
"""A session that has just begun may not watch its bell yet."""
HOOK_TIMEOUT_S: Final = 10
PERMISSION: Final = f"mcp__{SERVER}"
"""Leave to use all our tools, in Claude Code's own words."""
TOOL_HOOK_INPUT: Final = {
    "host": NAME,
    "session_id": "${session_id}",
    "cwd": "${cwd}",
    "transcript_path": "${transcript_path}",
    "agent_id": "${agent_id}",
}
MOMENTS: Final[dict[str, Moment | None]] = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "prompt",
    "PostToolUse": "tool",
    "Stop": "turn_end",
    "StopFailure": None,
    "FileChanged": "idle_wake",
}


# In the daemon


async def attend(daemon: "Daemon", session: AgentSession) -> None:
    """Ring the session's bell while something waits that should wake it, and look after what it was shown."""
    bell = bell_of(daemon.config, session.key)
    known = await asyncio.to_thread(remembered, daemon.config, NAME, session.key)
    if known.get("reach") == "wakeable":  # it watches its bell still, though the daemon began anew
        await session.set_reach("wakeable")
    ringing: asyncio.Task[None] | None = None
    watching = asyncio.create_task(watch(daemon, session))
    try:
        async for news in session.news():
            if news.wakes and session.status == "idle" and (ringing is None or ringing.done()):
                ringing = asyncio.create_task(_ring(session, bell))
    finally:
        for task in (ringing, watching):
            if task is not None:
                task.cancel()


def bell_of(config: ConfigDir, key: str) -> Path:
    """The file whose change wakes a session."""
    directory = hashlib.sha256(key.encode()).hexdigest()[:32]
    return config.path / "bells" / directory / BELL


async def _ring(session: AgentSession, bell: Path) -> None:
    for number, pause in enumerate(RING_AFTER_S):
        await asyncio.sleep(pause)
        waiting = await session.waiting()
        if session.status != "idle" or not (waiting.now or waiting.next):
            return
        _strike(bell, number)


def _strike(bell: Path, number: int) -> None:
    with contextlib.suppress(OSError):
        bell.write_text(f"{number}\n")


def _begin(daemon: "Daemon", call: HookCall) -> None:
    bell = bell_of(daemon.config, call.session)
    bell.parent.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    bell.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    bell.touch()
    facts = {"transcript": call.transcript, "process": str(call.process or ""), "reach": _reach(call)}
    remember(daemon.config, NAME, call.session, facts)


def _end(daemon: "Daemon", call: HookCall) -> None:
    _remove(bell_of(daemon.config, call.session))
    forget(daemon.config, NAME, call.session)


def _remove(bell: Path) -> None:
    bell.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        bell.parent.rmdir()


def _reach(call: HookCall) -> Reach:
    return "wakeable" if call.is_interactive else "turn"


def _show(call: HookCall, text: str) -> Shown:
    if call.event == "FileChanged":
        return Shown(stderr=text, exit_code=2) if text else Shown()
    if call.event != "SessionStart":
        return context_of(call, text)
    output: dict[str, Any] = {"hookEventName": call.event}
    if text:
        output["additionalContext"] = text
    if call.is_interactive:
        output["watchPaths"] = [str(bell_of(ConfigDir.of_environment(), call.session))]
    return Shown(json.dumps({"hookSpecificOutput": output}))


async def _evidence(session: AgentSession, call: HookCall) -> None:
    """By the record of the conversation; while there is none, by the end of a turn, which is none that failed."""
    begins = call.event == "SessionStart"
    if not await settle_by_record(session, NAME, call.transcript, begins=begins):
        await confirm_by_event(session, call)


HOOKS: Final = HookTable(
    MOMENTS, _show, _evidence, _reach, frozenset({"StopFailure"}), _begin, _end, prompts=frozenset({"idle_wake"})
)


# On the command line


class ClaudeCode:
    """Sets up Claude Code: the server by its own command, the hooks in its settings, for which it has none."""

    name = NAME
    title = "Claude Code"

    def probe(self, place: Place) -> Probe:
        """Look for the program, and for our entries."""
        program = find_program(place, "claude")
        version = version_of(place, program)
        return Probe(program, version, version in MEASURED_VERSIONS, is_set_up(self, place), "wakeable")

    def changes(self, place: Place) -> list[Change]:
        """What is missing."""
        load(server_file(place), _server_by_hand(place))
        return self._wanted(place)

    def install(self, place: Place) -> list[Change]:
        """Add what is missing."""
        wanted = self.changes(place)
        if not wanted:
            return []
        kept = Kept(place, NAME)
        if kept.exists:
            self.uninstall(place)
        # Whatever command it runs, Claude Code rewrites its own state.
        with kept.changing(dict.fromkeys([settings_file(place), server_file(place), state_file(place)])):
            self._add_server(place)
            settings = load(settings_file(place), _settings_by_hand(place))
            save(settings_file(place), with_ours(settings, place))
        return wanted

    def uninstall(self, place: Place) -> list[Change]:
        """Put back what was found; of a file that was written to since, remove our entries."""
        kept = Kept(place, NAME)
        before = self._present(place)
        if not before:
            return []
        if kept.exists:
            kept.restore()
        if _server_in(load(server_file(place), "")) is not None:
            run_program(place, [_program(place), "mcp", "remove", "--scope", place.scope, SERVER])
        settings = load(settings_file(place), "")
        if without_ours(settings) != settings:
            save(settings_file(place), without_ours(settings))
        return [Change(path, "our entries removed; everything else is as it was") for path in before]

    def started_with(self, place: Place, words: list[str]) -> Start:
        """As it is where it is set up; else with our server and hooks as options."""
        if is_set_up(self, place):
            return Start(words)
        servers = json.dumps({"mcpServers": {SERVER: server_entry(place)}})
        return Start([words[0], "--mcp-config", servers, "--settings", json.dumps(with_ours({}, place)), *words[1:]])

    def _add_server(self, place: Place) -> None:
        present = _server_in(load(server_file(place), _server_by_hand(place)))
        if present == server_entry(place):
            return
        command = [_program(place), "mcp"]
        if present is not None:
            run_program(place, [*command, "remove", "--scope", place.scope, SERVER])
        run_program(place, [*command, "add-json", "--scope", place.scope, SERVER, json.dumps(server_entry(place))])

    def _wanted(self, place: Place) -> list[Change]:
        wanted = []
        if _server_in(load(server_file(place), _server_by_hand(place))) != server_entry(place):
            wanted.append(Change(str(server_file(place)), f"`claude mcp add-json --scope {place.scope} {SERVER}`"))
        settings = load(settings_file(place), _settings_by_hand(place))
        if with_ours(settings, place) != settings:
            events = ", ".join(own_hooks(place))
            wanted.append(Change(str(settings_file(place)), f"hooks for {events}"))
        return wanted

    def _present(self, place: Place) -> list[str]:
        present = []
        if _server_in(load(server_file(place), "")) is not None:
            present.append(str(server_file(place)))
        settings = load(settings_file(place), "")
        if without_ours(settings) != settings:
            present.append(str(settings_file(place)))
        return present


HOST: Final = ClaudeCode()


def settings_file(place: Place) -> Path:
    """Where the hooks are."""
    return place.cwd / ".claude" / "settings.json" if place.scope == "project" else _directory(place) / "settings.json"


def server_file(place: Place) -> Path:
    """Where `claude mcp` keeps servers of a scope."""
    return place.cwd / ".mcp.json" if place.scope == "project" else state_file(place)


def state_file(place: Place) -> Path:
    """Where Claude Code keeps what it remembers, and a user's servers."""
    named = place.environment.get("CLAUDE_CONFIG_DIR")
    return (Path(named) if named else place.home) / ".claude.json"


def server_entry(place: Place) -> dict[str, Any]:
    """Our server. It is to be there before the first request: else the model would not know our tools."""
    program, *arguments = place.command("mcp", "--host", NAME)
    return {"type": "stdio", "command": program, "args": arguments, "alwaysLoad": True}


def own_hooks(place: Place) -> dict[str, dict[str, Any]]:
    """Our hook for each event, in the cheapest form that works for it."""
    command = shlex.join(place.command("hook", NAME))
    process = {"type": "command", "command": command, "timeout": HOOK_TIMEOUT_S}
    hooks: dict[str, dict[str, Any]] = {
        "SessionStart": {"hooks": [process]},
        "FileChanged": {"matcher": BELL, "hooks": [{**process, "asyncRewake": True}]},
        "SessionEnd": {"hooks": [process]},
        "StopFailure": {"hooks": [process]},
    }
    for event in ("UserPromptSubmit", "PostToolUse", "Stop"):
        hooks[event] = {"hooks": [_tool_hook(event)]}
    return hooks


def with_ours(settings: dict[str, Any], place: Place) -> dict[str, Any]:
    """Settings with our hooks after everybody else's, and with leave to use our tools if that is wanted."""
    found = with_hooks(without_ours(settings), own_hooks(place), NAME)
    if place.allows_tools:
        permissions = dict(found.get("permissions", {}))
        permissions["allow"] = [*permissions.get("allow", []), PERMISSION]
        found["permissions"] = permissions
    return found


def without_ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without anything of ours."""
    found = without_hooks(settings, NAME)
    permissions = found.get("permissions")
    if isinstance(permissions, dict) and PERMISSION in _list(permissions.get("allow")):
        others = [one for one in permissions["allow"] if one != PERMISSION]
        kept = {name: value for name, value in permissions.items() if name != "allow"}
        found["permissions"] = kept | ({"allow": others} if others else {})
        if not found["permissions"]:
            del found["permissions"]
    return found


def _settings_by_hand(place: Place) -> str:
    """What a person adds to settings that we do not rewrite."""
    return json.dumps(with_ours({}, place), indent=2)


def _tool_hook(event: str) -> dict[str, Any]:
    given = {**TOOL_HOOK_INPUT, "event": event}
    return {"type": "mcp_tool", "server": SERVER, "tool": TOOL, "input": given, "timeout": HOOK_TIMEOUT_S}


def _server_in(content: dict[str, Any]) -> Any:
    servers = content.get("mcpServers")
    return servers.get(SERVER) if isinstance(servers, dict) else None


def _server_by_hand(place: Place) -> str:
    return json.dumps({"mcpServers": {SERVER: server_entry(place)}}, indent=2)


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _directory(place: Place) -> Path:
    named = place.environment.get("CLAUDE_CONFIG_DIR")
    return Path(named) if named else place.home / ".claude"


def _program(place: Place) -> str:
    return find_program(place, "claude") or "claude"
