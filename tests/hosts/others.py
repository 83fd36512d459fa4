"""Real headless runs of Codex, Gemini CLI and opencode, each with a home of its own, against simulated models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.hosts import lab
from tests.hosts.simulated_openai import KEY_PREFIX
from tests.hosts.terminal import Terminal
from tests.processes import Machine

HEADLESS_WITHIN_S = 110
CODEX = """model = "simulated"
model_provider = "simulated"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.simulated]
name = "simulated"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SIMULATED_KEY"
supports_websockets = false
request_max_retries = 2
stream_max_retries = 0

[features]
daemon_auto_start = false

[analytics]
enabled = false

[projects."{project}"]
trust_level = "trusted"
"""
GEMINI = {
    "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
    "general": {"enableAutoUpdate": False, "disableUpdateNag": True, "disableAutoUpdate": True},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}


class Headless:
    """One host on one machine."""

    def __init__(self, machine: Machine, host: str, url: str) -> None:
        self.machine = machine
        self.host = host
        self.url = url
        self.project = machine.home / host
        for directory in (self.project, machine.home / "tmp"):
            directory.mkdir(parents=True, exist_ok=True)
        {"codex": self._write_codex, "gemini": self._write_gemini, "opencode": self._write_opencode}[host]()

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the machine that runs the test, and nothing that calls anybody but the simulated model."""
        home = self.machine.home
        programs = [lab.directory_of(self.host), lab.directory_of("node"), Path(sys.executable).parent]
        path = ":".join(map(str, [*programs, "/usr/bin", "/bin"]))
        common = {
            "PATH": path,
            "TMPDIR": str(home / "tmp"),
            "NO_PROXY": "127.0.0.1",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        }
        return self.machine.environment | common | _ENVIRONMENTS[self.host](home, self.url)

    def set_up(self) -> None:
        """`claudemesh install`."""
        self.mesh("install", self.host, "--allow-tools")

    def start(self, prompt: str, *options: str) -> "subprocess.Popen[str]":
        """Start a headless turn."""
        command = {
            "codex": ["exec", "--skip-git-repo-check", *options, prompt],
            "gemini": ["-p", prompt, "-m", "gemini-2.5-flash", *options],
            "opencode": ["run", prompt, *options],
        }[self.host]
        return subprocess.Popen(
            [str(lab.program(self.host)), *command],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, prompt: str, *options: str) -> tuple[str, str]:
        """A headless turn to its end: what it wrote to either stream."""
        process = self.start(prompt, *options)
        try:
            stdout, stderr = process.communicate(timeout=HEADLESS_WITHIN_S)
        finally:
            process.kill()
        assert process.returncode == 0, stdout + stderr
        return stdout, stderr

    def open(self, *options: str) -> Terminal:
        """An interactive session; the caller closes it."""
        return self.open_by([str(lab.program(self.host)), *options])

    def open_by(self, command: list[str], name: str = "terminal") -> Terminal:
        """A session that a command of ours starts, on a screen of this name."""
        place = self.machine.home / name
        place.mkdir(exist_ok=True)
        return Terminal(place, self.project, self.environment | {"TERM": "xterm-256color"}, command)

    def doctor(self) -> str:
        """What `claudemesh doctor` says here."""
        return self.run(self.machine.command("doctor")).stdout

    def mesh(self, *words: str) -> Any:
        """A command of ours in this host's surroundings, which must succeed."""
        done = self.run(self.machine.command(*words, "--json"))
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the host's own."""
        return self.run([str(lab.program(self.host)), *words])

    def run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def _write_codex(self) -> None:
        self._write(".codex/config.toml", CODEX.format(url=self.url, project=self.project))

    def _write_gemini(self) -> None:
        self._write(".gemini/settings.json", json.dumps(GEMINI))

    def _write_opencode(self) -> None:
        model = {"name": "Simulated", "tool_call": True, "limit": {"context": 100_000, "output": 4_000}}
        provider = {"npm": "@ai-sdk/openai-compatible", "name": "Simulated", "models": {"simulated": model}}
        options = {"baseURL": f"{self.url}/v1", "apiKey": f"{KEY_PREFIX}opencode"}
        settings = {
            "$schema": "https://opencode.ai/config.json",
            "autoupdate": False,
            "share": "disabled",
            "permission": {"*": "allow"},
        }
        settings |= {"model": "simulated/simulated", "small_model": "simulated/simulated"}
        settings |= {"provider": {"simulated": provider | {"options": options}}}
        self._write(".config/opencode/opencode.json", json.dumps(settings))
        # As after a first start with a network, here and in the project: else it tries for a minute to install what
        # plugins may import.
        listed = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": lab.VERSIONS["opencode"][1]}}}}
        for place in (".config/opencode", f"{self.host}/.opencode"):
            (self.machine.home / place / "node_modules").mkdir(parents=True)
            self._write(f"{place}/package-lock.json", json.dumps(listed))

    def _write(self, name: str, text: str) -> None:
        path = self.machine.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _codex(home: Path, url: str) -> dict[str, str]:
    return {"CODEX_HOME": str(home / ".codex"), "SIMULATED_KEY": f"{KEY_PREFIX}codex"}


def _gemini(home: Path, url: str) -> dict[str, str]:
    quiet = {"GEMINI_TELEMETRY_ENABLED": "false", "GEMINI_CLI_NO_RELAUNCH": "true"}
    return quiet | {"GEMINI_CLI_HOME": str(home), "GEMINI_API_KEY": "simulated", "GOOGLE_GEMINI_BASE_URL": url}


def _opencode(home: Path, url: str) -> dict[str, str]:
    places = {"CONFIG": ".config", "DATA": ".local/share", "CACHE": ".cache", "STATE": ".local/state"}
    names = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
    return {f"XDG_{name}_HOME": str(home / place) for name, place in places.items()} | {
        f"OPENCODE_DISABLE_{name}": "1" for name in names
    }


_ENVIRONMENTS = {"codex": _codex, "gemini": _gemini, "opencode": _opencode}
