"""A host's hook in the daemon: which moment an event is, what to show then, and what shows that it was read.

Every host's hooks come here: those that start a process (`calling`), and those that call the running MCP server's
tool `mesh_hook`, which starts none. docs/hosts.md §2.
"""

import asyncio
import contextlib
import importlib
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.agents.moments import Moment, Reach
from claudemesh.daemon.ipc import encode_frame
from claudemesh.daemon.logs import log_event
from claudemesh.errors import ClaudemeshError
from claudemesh.hosts import calling
from claudemesh.hosts.processes import host_process
from claudemesh.hosts.records import Finding
from claudemesh.hosts.seen import note_hook

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

WRITTEN_WITHIN_S: Final = 10.0
ATTACH: Final = "Attach"
"""A plugin inside the host reports a session again: the daemon began anew, or did not hear of it before."""
_OWN_KEY: Final = re.compile(r"[0-9a-f]{16}\Z")
"""What `claudemesh mcp` calls a session whose host does not tell it an id."""
TABLES: Final = {
    "claude-code": "claudemesh.hosts.claude_code:HOOKS",
    "codex": "claudemesh.hosts.codex:HOOKS",
    "gemini": "claudemesh.hosts.gemini:HOOKS",
    "opencode": "claudemesh.hosts.opencode:HOOKS",
}


class HookCall(NamedTuple):
    """One event of a session of a host, in the words of our hooks."""

    host: str
    event: str
    session: str
    """The host's own id of the session."""
    cwd: str = ""
    transcript: str = ""
    """The file in which the host keeps the conversation, where it has one."""
    agent: str = ""
    """Set for an event inside a subagent, whose context ends with it."""
    is_interactive: bool = False
    process: int = 0
    """The host's process; 0 when it is not known."""
    label: str = ""
    tags: tuple[str, ...] = ()
    mesh: str = ""
    surroundings: tuple[tuple[str, str], ...] = ()
    """Variables of the host's environment by which its program is found again."""
    record: Mapping[str, Finding] | None = None
    """What the host's record of the conversation holds of our messages, from a hook that can read it."""

    @classmethod
    def of_process(cls, args: Mapping[str, Any]) -> "HookCall":
        """What a hook process passed on, or a plugin inside the host."""
        given = args.get("event")
        event, environment = _texts(given), _texts(args.get("environment"))
        pid = environment.get("CLAUDE_PID", "")
        is_interactive = isinstance(given, dict) and given.get("is_interactive") is True
        return cls(
            host=str(args.get("host", "")),
            event=event.get("hook_event_name", ""),
            session=event.get("session_id", ""),
            cwd=event.get("cwd", ""),
            transcript=event.get("transcript_path", ""),
            agent=event.get("agent_id", ""),
            is_interactive=is_interactive or environment.get("CLAUDE_CODE_ENTRYPOINT") == "cli",
            process=int(pid) if pid.isascii() and pid.isdigit() else _process(args),
            label=environment.get("CLAUDEMESH_LABEL", ""),
            tags=tuple(filter(None, environment.get("CLAUDEMESH_TAGS", "").split(","))),
            mesh=environment.get("CLAUDEMESH_MESH", ""),
            surroundings=tuple((name, environment.get(name, "")) for name in ("PATH", "HOME", "CODEX_HOME")),
            record=_record(given),
        )

    @classmethod
    def of_tool(cls, arguments: Mapping[str, Any]) -> "HookCall":
        """What a hook passed to the tool `mesh_hook`; a field that the host does not know comes as an empty text."""
        given = _texts(arguments)
        return cls(
            host=given.get("host", "") or "claude-code",
            event=given.get("event", ""),
            session=given.get("session_id", ""),
            cwd=given.get("cwd", ""),
            transcript=given.get("transcript_path", ""),
            agent=given.get("agent_id", ""),
        )


class Shown(NamedTuple):
    """How a text is given to a host."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


class HookTable(NamedTuple):
    """What the hooks of one host are: the moments that its events are, and how it takes a text."""

    moments: Mapping[str, Moment | None]
    """None for an event that shows nothing: the session is there, or does something."""
    show: Callable[[HookCall, str], Shown]
    """Called also without a text: some hosts are told something else."""
    evidence: Callable[[AgentSession, HookCall], Any]
    """Awaited before anything is shown: what was shown before, and is it in the model's context?"""
    reach: Callable[[HookCall], Reach]
    idles: frozenset[str] = frozenset()
    """Events that show nothing, and after which the session is idle: a turn that failed."""
    begin: Callable[["Daemon", HookCall], None] = lambda _daemon, _call: None
    """Called when a session begins."""
    end: Callable[["Daemon", HookCall], None] = lambda _daemon, _call: None
    """Called when it ends."""
    is_stopped: Callable[[HookCall], bool] = lambda _call: False
    """Whether an event ends a turn that its user stopped, who has the word then: nothing is shown. May read files."""
    prompts: frozenset[Moment] = frozenset()
    """The moments whose text the host reports as a prompt, as if its user had typed it."""


class HookReply(NamedTuple):
    """What a hook writes, and what of it is to be accounted for."""

    shown: Shown = Shown()
    offers: tuple[int, ...] = ()
    session: AgentSession | None = None

    async def handed(self) -> None:
        """The host was given the text."""
        if self.session is not None and self.offers:
            await self.session.handed(self.offers)

    async def withdraw(self) -> None:
        """Nobody was there to be given it."""
        if self.session is not None and self.offers:
            await self.session.withdraw(self.offers)


async def attach(
    daemon: "Daemon", args: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one hook process: answer its event, and note when it has written the answer."""
    reply = await answer(daemon, HookCall.of_process(args))
    try:
        writer.write(encode_frame(reply.shown._asdict()))
        await writer.drain()
    except ConnectionError:
        await reply.withdraw()
        return
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(WRITTEN_WITHIN_S):
            match await reader.read(1):
                case b"":
                    pass  # it ended, and nobody knows whether it had written the answer
                case calling.NOT_WRITTEN:
                    await reply.withdraw()
                case _:
                    await reply.handed()


async def answer(daemon: "Daemon", call: HookCall) -> HookReply:
    """What to show at one event. A failure shows nothing: it is the user's turn that matters.

    Args:
        call: From a hook process or a tool call; any field may be empty or unknown.

    Returns:
        What the hook writes. The caller tells it what became of that: `handed` or `withdraw`.
    """
    try:
        return await _answer(daemon, call)
    except ClaudemeshError as error:
        log_event("hook_failed", code=error.code)
        return HookReply()
    except OSError as error:  # what is kept of a session in files cannot be written
        log_event("hook_failed", code="disk", kind=type(error).__name__)
        return HookReply()


async def _answer(daemon: "Daemon", call: HookCall) -> HookReply:
    name = TABLES.get(call.host)
    if name is None or not call.session or call.agent:
        return HookReply()
    module, attribute = name.split(":")
    table: HookTable = getattr(importlib.import_module(module), attribute)
    if call.event == "SessionEnd":
        await _end(daemon, table, call)
        return HookReply()
    if call.event not in table.moments:
        return HookReply()
    moment = table.moments[call.event]
    if moment == "idle_wake" and not call.is_interactive:
        return HookReply()  # a headless session waits for the hook that would wake it, and does not wake
    await _recognise(daemon, call)
    session = await daemon.agents.open(
        call.host,
        call.session,
        cwd=call.cwd,
        label=call.label,
        mesh=call.mesh,
        tags=call.tags,
        reach=table.reach(call),
        process=call.process,
    )
    session.touch()
    if moment == "session_start" or call.event == ATTACH:
        note_hook(daemon.config, call.host)
        await session.set_reach(table.reach(call))
        table.begin(daemon, call)
    await table.evidence(session, call)
    is_stopped = await asyncio.to_thread(table.is_stopped, call)
    if call.event in table.idles or is_stopped:
        await session.set_status("idle")
    if moment is None or is_stopped:
        return HookReply()
    taken = await session.take(moment, f"{call.host}.{moment}")
    if taken.ids and moment in table.prompts:
        session.wake()
    return HookReply(table.show(call, taken.text), taken.ids, session)


async def _recognise(daemon: "Daemon", call: HookCall) -> None:
    """See that a session whose server came first, under a key of its own, is this one: when there is no doubt."""
    if daemon.agents.find(call.host, call.session) is not None:
        return
    nameless = [
        one
        for one in daemon.agents.sessions()
        if one.host == call.host and one.cwd == call.cwd and one.reach == "asked" and _OWN_KEY.match(one.key)
        if one.process in (0, call.process)
    ]
    if len(nameless) == 1:
        await daemon.agents.adopt(nameless[0], call.host, call.session)


async def _end(daemon: "Daemon", table: HookTable, call: HookCall) -> None:
    session = daemon.agents.find(call.host, call.session)
    if session is not None:
        await table.evidence(session, call)
        await daemon.agents.close(session)
    table.end(daemon, call)


async def confirm_by_event(session: AgentSession, call: HookCall) -> None:
    """Where there is no record of the conversation, the end of a turn shows what was read in that turn.

    For hosts alone whose event says that the turn did not fail. A tool's end shows nothing: several may run at once,
    before the request that carries what the first one's end was given. Nor does a prompt: it precedes its request, and
    the one before may have been interrupted. Nor does the beginning of a session, which may follow a kill.
    """
    if call.event == "Stop":
        await session.confirm_handed("turn_ended")
    elif call.event == "SessionStart":
        await session.doubt_handed()


def context_of(call: HookCall, text: str) -> Shown:
    """The form that hosts share: text that is added to what the model is sent next."""
    if not text:
        return Shown()
    return Shown(json.dumps({"hookSpecificOutput": {"hookEventName": call.event, "additionalContext": text}}))


def go_on(text: str) -> Shown:
    """The form in which a turn that ends goes on with a text."""
    return Shown(json.dumps({"decision": "block", "reason": text})) if text else Shown()


def _texts(found: Any) -> dict[str, str]:
    return (
        {str(name): value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    )


def _process(args: Mapping[str, Any]) -> int:
    """The host: a plugin inside says which process it is, a hook process who started it."""
    own, parent = args.get("process"), args.get("parent")
    if isinstance(own, int):
        return own
    return host_process(parent) if isinstance(parent, int) else 0


def _record(event: Any) -> Mapping[str, Finding] | None:
    record = event.get("record") if isinstance(event, dict) else None
    if not isinstance(record, dict):
        return None
    found: dict[str, Finding] = {}
    for finding in ("present", "answered"):
        listed = record.get(finding)
        found |= {one: finding for one in listed if isinstance(one, str)} if isinstance(listed, list) else {}
    return found
