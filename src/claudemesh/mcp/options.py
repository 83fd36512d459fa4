"""What `claudemesh mcp` is told: on its command line, and by its host in the environment (docs/mcp.md §2).

A host waits for this process, so that it is read without click.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

_TEXTS: Final = ("--host", "--label", "--mesh")
_KEY_VARIABLES: Final = {"claude-code": "CLAUDE_CODE_SESSION_ID"}
"""Where a host tells the server its own id of the session."""
_BY_PROCESS: Final = frozenset({"opencode", "gemini"})
"""Hosts that tell a server no id of its session. What happens inside of the same process says which one is at work."""


class Options(NamedTuple):
    """How one session is served."""

    host: str = ""
    """Name of the host, such as `claude-code`; empty to find out."""
    label: str = ""
    """What others address the session by; empty for the base name of the working directory."""
    mesh: str = ""
    """The only mesh that it speaks in; empty for every one."""
    tags: tuple[str, ...] = ()
    peers_as_tools: bool = False
    """Also offer each peer that may ask as a tool of its own."""


def read_options(words: Sequence[str]) -> Options | None:
    """Read a command line; None when it needs click, to be helpful or to complain."""
    options, rest = Options(), list(words)
    while rest:
        name, is_joined, value = rest.pop(0).partition("=")
        if name == "--peers-as-tools" and not is_joined:
            options = options._replace(peers_as_tools=True)
            continue
        if not is_joined:
            if not rest:
                return None
            value = rest.pop(0)
        if name in _TEXTS:
            options = Options(**{**options._asdict(), name.removeprefix("--"): value})
        elif name == "--tag":
            options = options._replace(tags=(*options.tags, value))
        else:
            return None
    return options


def attach_arguments(options: Options, environment: Mapping[str, str], cwd: str, parent: int = 0) -> dict[str, Any]:
    """What the daemon is told of this session.

    Args:
        environment: Of it, what names a session (`claudemesh run`, a host) is read and passed on, and nothing else.
        parent: The process that started this one.

    Returns:
        `host` and `key` as docs/spec/ipc.md §5 `agent.open` has them, with the rest of the options. A host that gives
        its sessions no id that we could know gets one, which lasts as long as this process.
    """
    host = options.host or _host_of(environment)
    variable = _KEY_VARIABLES.get(host, "")
    tags = environment.get("CLAUDEMESH_TAGS", "").split(",")
    return {
        **options._asdict(),
        "host": host,
        "label": options.label or environment.get("CLAUDEMESH_LABEL", ""),
        "mesh": options.mesh or environment.get("CLAUDEMESH_MESH", ""),
        "key": environment.get(variable, "") or os.urandom(8).hex(),
        "cwd": environment.get("CLAUDE_PROJECT_DIR", "") or cwd,
        "tags": list(options.tags or filter(None, tags)),
        "process": parent if host in _BY_PROCESS else 0,
    }


def _host_of(environment: Mapping[str, str]) -> str:
    found = (host for host, variable in _KEY_VARIABLES.items() if environment.get(variable))
    return next(found, "mcp")
