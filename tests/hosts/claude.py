"""Real sessions of Claude Code, each with a home of its own, against a simulated model."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts import lab
from tests.hosts.simulated_anthropic import KEY_PREFIX
from tests.hosts.simulated_models import SimulatedModels
from tests.hosts.terminal import Terminal
from tests.processes import Machine, Result

HEADLESS_WITHIN_S = 100


@dataclass
class Claude:
    """One user's Claude Code on one machine, in the directory `project`."""

    machine: Machine
    models: SimulatedModels
    model: str
    project: Path
    searches_our_scripts: bool = False
    """Whether the name `claudemesh` alone is enough to run us, as it is for a user."""
    program: str = "claude-code"
    """Which of the installed versions runs: its name in `lab.VERSIONS`."""
    _terminals: list[Terminal] = field(default_factory=list)

    @classmethod
    def on(cls, machine: Machine, models: SimulatedModels, model: str, project: str = "") -> "Claude":
        """A new home with claudemesh set up by its own command; its tools need no permission."""
        one = cls(machine, models, model, machine.home / (project or model))
        for directory in (one.project, one.machine.home / "tmp", one.settings.parent):
            directory.mkdir(parents=True, exist_ok=True)
        one._trust((KEY_PREFIX + model)[-20:])
        return one

    def _trust(self, key: str) -> None:
        """What a user has answered before: the questions of the first start, of the key and of the directory."""
        known = json.loads(self.state.read_text()) if self.state.exists() else {}
        approved = [*known.get("customApiKeyResponses", {}).get("approved", []), key]
        trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True, "allowedTools": []}
        answers = {"hasCompletedOnboarding": True, "theme": "dark", "lastOnboardingVersion": "9.9.9"}
        answers |= {"customApiKeyResponses": {"approved": approved, "rejected": []}}
        answers |= {"projects": known.get("projects", {}) | {str(self.project): trusted}}
        self.state.write_text(json.dumps(known | answers))

    @property
    def settings(self) -> Path:
        return self.machine.home / ".claude" / "settings.json"

    @property
    def state(self) -> Path:
        return self.settings.with_name(".claude.json")

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the machine that runs the test, and nothing that calls anybody but the simulated model."""
        home = self.machine.home
        return self.machine.environment | {
            "PATH": f"{lab.directory_of(self.program)}:/usr/bin:/bin{self._scripts}",
            "CLAUDE_CONFIG_DIR": str(self.settings.parent),
            "ANTHROPIC_BASE_URL": self.models.url,
            "ANTHROPIC_API_KEY": KEY_PREFIX + self.model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "CLAUDE_CODE_TMPDIR": str(home / "tmp"),
            "TMPDIR": str(home / "tmp"),
            "NO_PROXY": "127.0.0.1",
            "IS_SANDBOX": "1",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }

    def mesh(self, *words: str) -> Result:
        """A command of ours in this session's surroundings."""
        return self._run(self.machine.command(*words))

    def set_up(self) -> None:
        """`claudemesh install`."""
        done = self.mesh("install", "claude-code", "--allow-tools", "--json")
        assert done.exit_code == 0, done.stdout + done.stderr

    def claude(self, *words: str) -> Result:
        """A command of Claude Code's own."""
        return self._run([str(lab.program(self.program)), *words])

    def ask(self, prompt: str, *options: str) -> Result:
        """A headless turn, to its end."""
        return self.claude("-p", prompt, *options, *self._debug)

    def open(self, *options: str) -> Terminal:
        """An interactive session, ready for its user."""
        command = [str(lab.program(self.program)), *options, *self._debug]
        own = self.machine.home / "screens" / self.model
        own.mkdir(parents=True, exist_ok=True)
        terminal = Terminal(own, self.project, self.environment, command)
        self._terminals.append(terminal)
        terminal.wait_for("❯")
        return terminal

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close()

    @property
    def _scripts(self) -> str:
        return f":{Path(sys.executable).parent}" if self.searches_our_scripts else ""

    @property
    def _debug(self) -> list[str]:
        return ["--debug-file", str(self.machine.home / f"{self.model}.debug.log")]

    def _run(self, command: list[str]) -> Result:
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HEADLESS_WITHIN_S,
            check=False,
        )
        return Result(done.returncode, done.stdout.strip(), done.stderr)
