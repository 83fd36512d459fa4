"""Codex CLI: hooks in the shape of Claude Code's, a table in its configuration, its own queue for an idle session.

Codex skips hooks in silence until its user has trusted them in `/hooks`. That trust is the user's to give and is never
written here; `probe` says when it is missing. docs/hosts/codex.md.
"""

import asyncio
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.daemon.logs import log_event
from claudemesh.hosts.base import SERVER, Change, Place, Probe, Unwritable, find_program, is_set_up, version_of
from claudemesh.hosts.hooks import HookCall, HookTable, Shown, confirm_by_event, context_of, go_on
from claudemesh.hosts.json_hooks import has_hooks, with_hooks, without_hooks
from claudemesh.hosts.processes import attend as watch_process
from claudemesh.hosts.seen import last_hook, remember, remembered
from claudemesh.hosts.settings import Kept, load, save, write

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

NAME: Final = "codex"
MEASURED_VERSIONS: Final = ("0.169.0",)
HOOK_TIMEOUT_S: Final = 10
QUEUE_WITHIN_S: Final = 30.0
MARK: Final = "# claudemesh: `claudemesh uninstall codex` removes this table\n"
"""Stands above our table, and nothing below it: Codex writes tables of its own before what stands at the end."""
_SECTION: Final = re.compile(r"^(?=[ \t]*\[)", re.MULTILINE)
_OUR_SECTION: Final = re.compile(rf"\s*\[\s*mcp_servers\s*\.\s*\"?{SERVER}\"?\s*[.\]]")
_NOTHING_BUT_COMMENTS: Final = re.compile(r"^(?:[ \t\r]*(?:#[^\n]*)?\n)*\Z", re.MULTILINE)
MOMENTS: Final[dict[str, Moment]] = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "prompt",
    "PostToolUse": "tool",
    "Stop": "turn_end",
}
QUEUED: Final = "Your user did not write this: claudemesh hands you what another agent sent.\n\n"
UNTRUSTED: Final = (
    "no hook of ours has run yet in a session of Codex: if you have used it since, its hooks are not trusted and are"
    " skipped without a word; trust them by /hooks inside Codex"
)


# In the daemon


async def attend(daemon: "Daemon", session: AgentSession) -> None:
    """Hand what should wake an idle session to Codex's own queue, and end the session with its process."""
    watching = asyncio.create_task(watch_process(daemon, session))
    try:
        async for news in session.news():
            if news.wakes and session.status == "idle":
                await _queue(daemon, session)
    finally:
        watching.cancel()


async def _queue(daemon: "Daemon", session: AgentSession) -> None:
    known = await asyncio.to_thread(remembered, daemon.config, NAME, session.key)
    program = known.get("program", "")
    if not program:
        return
    taken = await session.take("idle_wake", f"{NAME}.queue")
    if not taken.offers:
        return
    if await _run(program, known, session.key, QUEUED + taken.text):
        await session.handed(taken.ids)
    else:
        await session.withdraw(taken.ids)
        await session.set_reach("turn")  # what does not work is not promised, nor tried for every message


async def _run(program: str, known: dict[str, str], thread: str, text: str) -> bool:
    environment = {name: known[name] for name in ("PATH", "HOME", "CODEX_HOME") if known.get(name)}
    command = [program, "queue", "--thread", thread, "--message", text]
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
    known = dict(call.surroundings)
    program = shutil.which("codex", path=known.get("PATH")) or ""
    remember(daemon.config, NAME, call.session, known | {"program": program, "process": str(call.process)})


def _reach(call: HookCall) -> Reach:
    return "wakeable"


def _show(call: HookCall, text: str) -> Shown:
    return go_on(text) if call.event == "Stop" else context_of(call, text)


HOOKS: Final = HookTable(MOMENTS, _show, confirm_by_event, _reach, _begin)


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
        version = version_of(place, program) if program else ""
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
            write(path, _with_table(path, _text(path), place).encode())
            hooks = load(hooks_file(place), _by_hand(place))
            save(hooks_file(place), with_hooks(hooks, own_hooks(place), NAME))
        return wanted

    def uninstall(self, place: Place) -> list[Change]:
        """Put back what was found, or remove our entries alone."""
        before = self._present(place)
        Kept(place, NAME).restore()
        path = config_file(place)
        text = _text(path)
        if (rest := _without_table(path, text)) != text:
            write(path, rest.encode())
        hooks = load(hooks_file(place), "")
        if has_hooks(hooks, NAME):
            save(hooks_file(place), without_hooks(hooks, NAME))
        return before

    def started_with(self, place: Place, words: list[str]) -> list[str]:
        """As it is where it is set up; else with our server as options: hooks cannot be given for one run."""
        if is_set_up(self, place):
            return words
        given: list[str] = []
        for key, value in _server(place).items():
            given += ["-c", f"mcp_servers.{SERVER}.{key}={json.dumps(value)}"]
        return [words[0], *given, *words[1:]]

    def _wanted(self, place: Place) -> list[Change]:
        wanted = []
        if table(place) not in _checked(place):
            wanted.append(Change(str(config_file(place)), f"the table [mcp_servers.{SERVER}], at the end"))
        hooks = load(hooks_file(place), _by_hand(place))
        if with_hooks(hooks, own_hooks(place), NAME) != hooks:
            events = ", ".join(MOMENTS)
            wanted.append(Change(str(hooks_file(place)), f"hooks for {events}; then trust them by /hooks in Codex"))
        return wanted

    def _present(self, place: Place) -> list[Change]:
        path, present = config_file(place), []
        if MARK in _text(path):
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
    """Our table, below a comment that says whose it is."""
    rows = "".join(f"{key} = {json.dumps(value)}\n" for key, value in _server(place).items())
    return f"{MARK}[mcp_servers.{SERVER}]\n{rows}"


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


def _checked(place: Place) -> str:
    """The configuration's text, which must be valid before anything is appended to it."""
    path, text, by_hand = config_file(place), _text(config_file(place)), table(place)
    servers = _parsed(path, text, by_hand).get("mcp_servers", {})
    if isinstance(servers, dict) and SERVER in servers and MARK not in text:
        raise Unwritable(path, f"has a table [mcp_servers.{SERVER}] that is not ours", by_hand)
    try:
        tomllib.loads(_with_table(path, text, place))
    except tomllib.TOMLDecodeError as error:  # `mcp_servers` is an inline table, say
        raise Unwritable(path, "has something else where our table is to stand", by_hand) from error
    return text


def _text(path: Path) -> str:
    """The bytes as text, with the line ends that they have."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Unwritable(path, "cannot be read", "") from error


def _with_table(path: Path, text: str, place: Place) -> str:
    rest = _without_table(path, text)
    return rest + ("" if not rest or rest.endswith("\n") else "\n") + table(place)


def _without_table(path: Path, text: str) -> str:
    """The configuration without our table and those below it; comments above the next one are somebody else's.

    Raises:
        Unwritable: That cannot be done by cutting out lines: nothing but our entry may be missing afterwards.
    """
    if MARK not in text:
        return text
    kept = (_tail(one) if _OUR_SECTION.match(one) else one for one in _SECTION.split(text))
    rest = "".join(kept).replace(MARK, "")
    before, after = _parsed(path, text, ""), _parsed(path, rest, "")
    before.get("mcp_servers", {}).pop(SERVER, None)
    if _without_empty(before) != _without_empty(after):
        raise Unwritable(path, "has our table in another form than we wrote", "")
    return rest


def _tail(section: str) -> str:
    """The comments and blank lines at the end of a table, which are about the next one."""
    found = _NOTHING_BUT_COMMENTS.search(section)
    return found[0] if found else ""


def _parsed(path: Path, text: str, by_hand: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Unwritable(path, "is not valid TOML", by_hand) from error


def _without_empty(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "mcp_servers" or value}


def _by_hand(place: Place) -> str:
    return json.dumps({"hooks": {event: [group] for event, group in own_hooks(place).items()}}, indent=2)


def _directory(place: Place) -> Path:
    if place.scope == "project":
        return place.cwd / ".codex"
    named = place.environment.get("CODEX_HOME")
    return Path(named) if named else place.home / ".codex"
