"""Codex CLI: hooks in the shape of Claude Code's, a table in its configuration, its own queue for an idle session.

Codex skips hooks in silence until its user has trusted them in `/hooks`. That trust is the user's to give and is never
written here; `probe` says when it is missing. docs/hosts/codex.md.
"""

import asyncio
import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.logs import log_event
from claudemesh.hosts.base import SERVER, Change, Place, Probe, Start, find_program, is_set_up, version_of
from claudemesh.hosts.hooks import HookCall, HookTable, Shown, confirm_by_event, context_of, go_on
from claudemesh.hosts.json_hooks import has_hooks, with_hooks, without_hooks
from claudemesh.hosts.processes import attend as watch_process
from claudemesh.hosts.seen import last_hook, remember, remembered
from claudemesh.hosts.settings import Kept, load, save, write
from claudemesh.hosts.settling import settle_by_record
from claudemesh.hosts.toml_table import SERVERS, entry_in, has_table, read_text, with_table, without_table

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

NAME: Final = "codex"
MEASURED_VERSIONS: Final = ("0.169.0",)
HOOK_TIMEOUT_S: Final = 10
QUEUE_WITHIN_S: Final = 30.0
CALL_AFTER_S: Final = (0.0, 15.0)
"""What is queued at the very end of a turn Codex takes, and may forget."""
MOMENTS: Final[dict[str, Moment]] = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "prompt",
    "PostToolUse": "tool",
    "Stop": "turn_end",
}
NOTICE: Final = (
    "Your user did not write this: another agent's message waits for you. claudemesh shows it beside this prompt; if it"
    " is not there, read it with mesh_inbox()."
)
"""What Codex is given as the prompt of that turn; what waits is added by the hook of the prompt."""
UNTRUSTED: Final = (
    "no hook of ours has run yet in a session of Codex: if you have used it since, its hooks are not trusted and are"
    " skipped without a word; trust them by /hooks inside Codex"
)


# In the daemon


async def attend(daemon: "Daemon", session: AgentSession) -> None:
    """Have Codex's own queue begin a turn of an idle session that something should wake; end it with its process."""
    watching = asyncio.create_task(watch_process(daemon, session))
    calling: asyncio.Task[None] | None = None
    try:
        async for news in session.news():
            if news.wakes and _is_callable(session) and (calling is None or calling.done()):
                calling = asyncio.create_task(_call(daemon, session))
    finally:
        for task in (watching, calling):
            if task is not None:
                task.cancel()


def _is_callable(session: AgentSession) -> bool:
    """Whether its queue may begin a turn: not after its user stopped one, nor once the queue has refused."""
    return session.status == "idle" and session.reach == "wakeable"


async def _call(daemon: "Daemon", session: AgentSession) -> None:
    """Queue the notice, and nothing else: every user of the machine can read the arguments of a process."""
    known = await asyncio.to_thread(remembered, daemon.config, NAME, session.key)
    program = known.get("program", "")
    for pause in CALL_AFTER_S if program else ():
        await asyncio.sleep(pause)
        waiting = await session.waiting()
        if not _is_callable(session) or not (waiting.now or waiting.next):
            return
        session.wake()
        if not await _queue(program, known, session.key):
            await session.set_reach("turn")  # what does not work is not promised, nor tried for every message
            return


async def _queue(program: str, known: dict[str, str], thread: str) -> bool:
    environment = {name: known[name] for name in ("PATH", "HOME", "CODEX_HOME") if known.get(name)}
    command = [program, "queue", "--thread", thread, "--message", NOTICE]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(QUEUE_WITHIN_S):
            code = await process.wait()
    except TimeoutError:
        process.kill()
        code = await process.wait()
    log_event("host_queue", count=code)
    return code == 0


def _begin(daemon: "Daemon", call: HookCall) -> None:
    remember(daemon.config, NAME, call.session, _facts(call))


def _facts(call: HookCall) -> dict[str, str]:
    return dict(call.surroundings) | {"process": str(call.process), "transcript": call.transcript}


def _note_idle(call: HookCall) -> None:
    """Its queue may be used from the end of a turn on: a session begins with one, and `codex exec` ends with it."""
    program = shutil.which("codex", path=dict(call.surroundings).get("PATH")) or ""
    remember(ConfigDir.of_environment(), NAME, call.session, _facts(call) | {"program": program})


def _reach(call: HookCall) -> Reach:
    return "wakeable"


def _show(call: HookCall, text: str) -> Shown:
    return go_on(text) if call.event == "Stop" else context_of(call, text)


async def _evidence(session: AgentSession, call: HookCall) -> None:
    """By its record, where it has one: only there a turn that failed differs from one that was answered."""
    is_settled = await settle_by_record(session, NAME, call.transcript, has_answered=call.event == "Stop")
    if call.event == "SessionStart":  # a kill may have come between what a hook said and its place in the record
        await session.doubt_handed()
    elif not is_settled:
        await confirm_by_event(session, call)
    if call.event == "UserPromptSubmit" and session.reach == "turn":  # its queue goes on once its user has spoken
        await session.set_reach("wakeable")
    if call.event == "Stop":
        await asyncio.to_thread(_note_idle, call)


HOOKS: Final = HookTable(MOMENTS, _show, _evidence, _reach, begin=_begin)


# On the command line


class Codex:
    """Sets up Codex: a table of its own in config.toml, and hooks.json.

    `codex mcp add` cannot say `required`, without which the first turn does not wait for our tools; the table is
    appended as text, so that comments stay.
    """

    name = NAME
    title = "Codex CLI"

    def probe(self, place: Place) -> Probe:
        """Look for the program and our entries, and whether a hook of ours has ever run."""
        program = find_program(place, "codex")
        version = version_of(place, program)
        is_there = is_set_up(self, place)
        problems = (UNTRUSTED,) if is_there and not last_hook(place.config, NAME) else ()
        return Probe(program, version, version in MEASURED_VERSIONS, is_there, "wakeable", problems)

    def changes(self, place: Place) -> list[Change]:
        """What is missing."""
        return self._wanted(place)

    def install(self, place: Place) -> list[Change]:
        """Add what is missing."""
        wanted = self._wanted(place)
        if not wanted:
            return []
        kept = Kept(place, NAME)
        if kept.exists:
            self.uninstall(place)
        with kept.changing([config_file(place), hooks_file(place)]):
            path = config_file(place)
            write(path, with_table(path, read_text(path), table(place)).encode())
            hooks = load(hooks_file(place), _by_hand(place))
            save(hooks_file(place), with_hooks(hooks, own_hooks(place), NAME))
        return wanted

    def uninstall(self, place: Place) -> list[Change]:
        """Put back what was found, or remove our entries alone."""
        before = self._present(place)
        Kept(place, NAME).restore()
        path = config_file(place)
        if has_table(text := read_text(path)):
            write(path, without_table(path, text).encode())
        hooks = load(hooks_file(place), "")
        if has_hooks(hooks, NAME):
            save(hooks_file(place), without_hooks(hooks, NAME))
        return before

    def started_with(self, place: Place, words: list[str]) -> Start:
        """As it is where it is set up; else with our server as options: hooks cannot be given for one run."""
        if is_set_up(self, place):
            return Start(words)
        given: list[str] = []
        for key, value in _server(place).items():
            given += ["-c", f"{SERVERS}.{SERVER}.{key}={json.dumps(value)}"]
        return Start([words[0], *given, *words[1:]])

    def _wanted(self, place: Place) -> list[Change]:
        path, wanted = config_file(place), []
        text = read_text(path)
        with_table(path, text, table(place))  # says why it cannot be
        if not has_table(text) or not _is_ours(entry_in(text), place):
            wanted.append(Change(str(path), f"the table [mcp_servers.{SERVER}], at the end"))
        hooks = load(hooks_file(place), _by_hand(place))
        if with_hooks(hooks, own_hooks(place), NAME) != hooks:
            events = ", ".join(MOMENTS)
            wanted.append(Change(str(hooks_file(place)), f"hooks for {events}; then trust them by /hooks in Codex"))
        return wanted

    def _present(self, place: Place) -> list[Change]:
        path, present = config_file(place), []
        if has_table(read_text(path)):
            present.append(Change(str(path), "our table removed"))
        if has_hooks(load(hooks_file(place), ""), NAME):
            present.append(Change(str(hooks_file(place)), "our hooks removed"))
        return present


HOST: Final = Codex()


def config_file(place: Place) -> Path:
    """Where servers are."""
    return _directory(place) / "config.toml"


def hooks_file(place: Place) -> Path:
    """Where hooks are."""
    return _directory(place) / "hooks.json"


def table(place: Place) -> str:
    """Our table: its head and rows."""
    rows = "".join(f"{key} = {json.dumps(value)}\n" for key, value in _server(place).items())
    return f"[{SERVERS}.{SERVER}]\n{rows}"


def own_hooks(place: Place) -> dict[str, dict[str, Any]]:
    """Our hook for each event."""
    command = shlex.join(place.command("hook", NAME))
    hook = {"type": "command", "command": command, "timeout": HOOK_TIMEOUT_S}
    return {event: {"hooks": [hook]} for event in MOMENTS}


def _server(place: Place) -> dict[str, Any]:
    program, *arguments = place.command("mcp", "--host", NAME)
    found: dict[str, Any] = {"command": program, "args": arguments, "required": True, "tool_timeout_sec": 600}
    # Codex gives a server none of its own environment but a few names.
    found["env_vars"] = ["CLAUDEMESH_CONFIG_DIR", "CLAUDEMESH_LABEL", "CLAUDEMESH_TAGS", "CLAUDEMESH_MESH"]
    return found | ({"default_tools_approval_mode": "approve"} if place.allows_tools else {})


def _is_ours(entry: dict[str, Any], place: Place) -> bool:
    """Whether it says what we would write; Codex and its user may have added to it."""
    known = _server(place._replace(allows_tools=True))
    return {name: value for name, value in entry.items() if name in known} == _server(place)


def _by_hand(place: Place) -> str:
    return json.dumps({"hooks": {event: [group] for event, group in own_hooks(place).items()}}, indent=2)


def _directory(place: Place) -> Path:
    if place.scope == "project":
        return place.cwd / ".codex"
    named = place.environment.get("CODEX_HOME")
    return Path(named) if named else place.home / ".codex"
