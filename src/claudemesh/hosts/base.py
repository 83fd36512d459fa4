"""The contract of a host's adapter: one module for each program that agents run in (docs/hosts.md §1).

An adapter has two sides. On the command line it looks for the host and sets it up: `probe`, `changes`, `install`,
`uninstall`. In the daemon it offers messages to the host's running sessions and finds the evidence that they were
read: its table of hooks (`hooks.HookTable`) and, for a host that can be pushed to, `attend`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.errors import LocalError, UsageError

Scope = Literal["user", "project"]
SERVER: Final = "claudemesh"
"""The name of our server in every host's settings; the tools' names begin with it there."""
NAMES: Final = ("claude-code", "codex", "gemini", "opencode")
_PROGRAM_WITHIN_S: Final = 60


class Place(NamedTuple):
    """Where something is set up, and for whom."""

    scope: Scope
    home: Path
    cwd: Path
    environment: Mapping[str, str]
    config: ConfigDir
    allows_tools: bool = False
    """Whether the host is to let the agent use our tools without asking its user each time."""

    @classmethod
    def of_environment(cls, scope: Scope, allows_tools: bool = False) -> "Place":
        """This process's user and directory."""
        return cls(scope, Path.home(), Path.cwd(), dict(os.environ), ConfigDir.of_environment(), allows_tools)

    def command(self, *words: str) -> list[str]:
        """The words that run us: this very interpreter for a user, the plain name in files that a project shares."""
        own = [SERVER] if self.scope == "project" else [sys.executable, "-P", "-m", "claudemesh"]
        return [*own, *words]


class Probe(NamedTuple):
    """What was found of a host on this machine."""

    program: str
    """Its path; empty when it is not installed."""
    version: str
    is_measured: bool
    """Whether our tests ran with this version."""
    is_set_up: bool
    reach: str
    """How a message reaches a session that does not ask, once it is set up: a word of presence."""
    problems: tuple[str, ...] = ()
    """What keeps it from working, each with its remedy."""


class Change(NamedTuple):
    """One thing that `install` does, for a person to read before it is done."""

    path: str
    what: str


class Start(NamedTuple):
    """How a host is started for one run."""

    words: list[str]
    environment: Mapping[str, str] = MappingProxyType({})
    """Variables that it gets besides those that are there."""


class Host(Protocol):
    """One host."""

    name: str
    title: str

    def probe(self, place: Place) -> Probe:
        """Look at what is here; changes nothing."""
        ...

    def changes(self, place: Place) -> list[Change]:
        """What `install` would do; nothing when everything is in place."""
        ...

    def install(self, place: Place) -> list[Change]:
        """Do that; a second time, nothing.

        Raises:
            Unwritable: A file of the user's is not plain JSON or TOML; nothing was changed.
            LocalError: `host_failed`; what the host's own command said.
        """
        ...

    def uninstall(self, place: Place) -> list[Change]:
        """Take back what `install` did: byte for byte where nobody has written since, else our entries alone."""
        ...

    def started_with(self, place: Place, words: list[str]) -> Start:
        """What runs the host with everything of ours, whether it is set up or not."""
        ...


class Unwritable(LocalError):
    """A settings file has comments or is not valid, and is left as it is. Nothing took effect."""

    def __init__(self, path: Path, why: str, by_hand: str) -> None:
        super().__init__("host_settings", f"{path} {why}; it was left as it is")
        self.path = path
        self.by_hand = by_hand

    def hint(self) -> str:
        mend = "Mend it and try again"
        return f"{mend}, or add this to it by hand:\n{self.by_hand}" if self.by_hand else f"{mend}."

    def names_us(self) -> bool:
        """Whether somebody has added our server by hand, as far as can be seen in a file that cannot be read."""
        try:
            return SERVER in self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False


def is_set_up(host: Host, place: Place) -> bool:
    """Whether everything of ours is there, with leave to use our tools or without; or was added by hand."""
    try:
        return any(
            not host.changes(place._replace(allows_tools=one)) for one in (place.allows_tools, not place.allows_tools)
        )
    except Unwritable as error:
        return error.names_us()


def require_words(label: str, tags: tuple[str, ...]) -> None:
    """See that a session can go by these: a hook could tell nobody that it cannot.

    Raises:
        UsageError: One of them is no label, or no tag.
    """
    from claudemesh.peer import contents

    contents.require_tags(tags)
    if label and not contents.as_label(label):
        raise UsageError("usage", f"{label!r} has no letter or digit to make a label of")


def find_program(place: Place, name: str) -> str:
    """The path of a host's program; empty when it is not installed."""
    return shutil.which(name, path=place.environment.get("PATH")) or ""


def version_of(place: Place, program: str) -> str:
    """What `--version` prints, up to the first blank; empty when it prints nothing, or there is no program."""
    if not program:
        return ""
    try:
        words = run_program(place, [program, "--version"]).split()
    except LocalError:
        return ""
    return next((word for word in words if word[:1].isdigit()), "")


def run_program(place: Place, command: list[str]) -> str:
    """Run a host's own command to its end; returns what it wrote.

    Raises:
        LocalError: `host_failed`, with its words.
    """
    try:
        done = subprocess.run(
            command,
            cwd=place.cwd,
            env=dict(place.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROGRAM_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalError("host_failed", f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[:500]
        raise LocalError("host_failed", f"{' '.join(command[:4])}: {said or done.returncode}")
    return done.stdout


def host_of(name: str) -> Host:
    """The adapter of a host by its name, one of `NAMES`."""
    import importlib

    module = importlib.import_module(f"claudemesh.hosts.{name.replace('-', '_')}")
    host: Host = module.HOST
    return host
