"""One contract for every host: an interactive session of Bob's, set up and ready, whose model follows a script."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.hosts.claude import Claude
from tests.hosts.conftest import Mesh
from tests.hosts.others import Headless
from tests.hosts.simulated_anthropic import simulated_anthropic
from tests.hosts.simulated_gemini import simulated_gemini
from tests.hosts.simulated_models import Block, Body, Call, Request, Say, Script, SimulatedModels
from tests.hosts.simulated_openai import simulated_openai
from tests.hosts.terminal import Terminal
from tests.processes import wait_until

WITHIN_S = 60


class Kind(NamedTuple):
    """What tells one host from the others."""

    models: Callable[[str, Script], SimulatedModels]
    tool: Callable[[str], Call]
    """A tool of ours by its name, as this host calls it."""
    is_wakeable: bool = True
    options: tuple[str, ...] = ()
    ready: str = "❯"
    """What is on the screen when it can be written to."""
    shorter: tuple[str, str] = ("/compact", "ompacted")
    """What makes the conversation shorter, and what is on the screen then."""
    interrupt: tuple[str, ...] = ("Escape",)


KINDS = {
    "claude-code": Kind(
        lambda name, script: simulated_anthropic(**{name: script}), lambda name: Call(f"mcp__claudemesh__{name}", {})
    ),
    "codex": Kind(
        lambda name, script: simulated_openai(**{name: script}),
        lambda name: Call(name, {}, "mcp__claudemesh"),
        options=("--dangerously-bypass-hook-trust",),  # stands for a user who has trusted the hooks by `/hooks`
        ready="simulated",
    ),
    "gemini": Kind(
        lambda _, script: simulated_gemini(script),
        lambda name: Call(f"mcp_claudemesh_{name}", {}),
        is_wakeable=False,
        options=("-m", "gemini-2.5-flash", "--approval-mode", "yolo"),
        ready="Type your message",
        shorter=("/compress", "compressed from"),
    ),
    "opencode": Kind(
        lambda name, script: simulated_openai(**{name: script}),
        lambda name: Call(f"claudemesh_{name}", {}),
        ready="Ask anything",
        shorter=("/compact", "─ Compaction ─"),
        interrupt=("Escape", "Escape"),
    ),
}
WAKEABLE = [name for name, kind in KINDS.items() if kind.is_wakeable]


@dataclass
class Session:
    """A session of one host; its label is the host's name."""

    host: str
    mesh: Mesh
    script: Script = lambda _body, number: [Say(f"reply {number}")]
    _terminals: list[Terminal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kind = KINDS[self.host]
        self.models = self.kind.models(self.host, lambda body, number: self.script(body, number))
        if self.host == "claude-code":
            claude = Claude.on(self.mesh.bob, self.models, self.host)
            claude.set_up()
            self._open: Callable[..., Terminal] = claude.open
        else:
            other = Headless(self.mesh.bob, self.host, self.models.url)
            other.set_up()
            self._open = other.open

    @property
    def address(self) -> str:
        return f"bob.desktop/{self.host}"

    @property
    def requests(self) -> list[Request]:
        return self.models.requests

    def begin(self) -> Terminal:
        """Open it and have a first turn, from which on it is there in every host."""
        terminal = self._open(*self.kind.options)
        self._terminals.append(terminal)
        terminal.wait_for(self.kind.ready, WITHIN_S)
        terminal.type("hello")
        terminal.wait_for("reply 0", WITHIN_S)
        reach = "wakeable" if self.kind.is_wakeable else "turn"
        wait_until(lambda: self.reach() == {self.host: reach}, f"it is there: {self.reach()}", WITHIN_S)
        self.wait_until_idle()
        return terminal

    def wait_until_idle(self) -> None:
        """Wait until its turn has ended, as its hooks tell."""
        wait_until(lambda: self.status() == "idle", "its turn has ended", WITHIN_S)

    def interrupt(self) -> None:
        """Its user stops the turn."""
        for key in self.kind.interrupt:
            self._terminals[-1].press(key)
            if key != self.kind.interrupt[-1]:
                self._terminals[-1].wait_for("again to interrupt")

    def shorten(self) -> None:
        """Its user has the conversation made shorter."""
        command, done = self.kind.shorter
        self._terminals[-1].command(command, done, WITHIN_S)

    def reach(self) -> dict[str, str]:
        """How each session of Bob's is reached, as Alice sees it."""
        return {str(one["label"]): str(one["reach"]) for one in self._seen() if one["label"]}

    def status(self) -> str:
        """Whether it is idle, as Alice sees it."""
        return next((str(one["status"]) for one in self._seen() if one["label"] == self.host), "")

    def wait_for_requests(self, count: int) -> list[Request]:
        """What its model was asked, once there is so much."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests, not {len(self.requests)}", WITHIN_S)
        return self.requests

    def shown(self, text: str) -> list[int]:
        """How often a message stands in each request."""
        return [request.text.count(f"| {text}") for request in self.requests]

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close()
        self.models.close()
        assert not self.models.errors

    def _seen(self) -> list[dict[str, object]]:
        (bob,) = [one for one in self.mesh.alice.ok("peers")["peers"] if one["address"] == "bob.desktop"]
        found: list[dict[str, object]] = bob["sessions"]
        return found


def thinks(until: Callable[[], object], at: int, then: list[Block] | None = None) -> Script:
    """A model that waits at its request of this number, and answers every other one with its number."""

    def script(_body: Body, number: int) -> list[Block]:
        if number == at:
            until()
            return then or [Say(f"reply {number}")]
        return [Say(f"reply {number}")]

    return script
