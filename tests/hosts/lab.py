"""The real programs, in pinned versions, in a cache directory: `python -m tests.hosts` installs them.

They come from the package registry that npm is configured for. Claude Code and the others need a newer Node than a
machine may have, so that one is installed beside them. About 2 GB; `$CLAUDEMESH_HOSTS_LAB` says where.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LAB: Final = Path(os.environ.get("CLAUDEMESH_HOSTS_LAB", ROOT / "build" / "hosts-lab")).absolute()

VERSIONS: Final = {
    "node": ("node", "24.21.0"),
    "claude-code": ("@anthropic-ai/claude-code", "2.1.330"),
    "claude-code-older": ("@anthropic-ai/claude-code", "2.1.197"),
    "codex": ("@openai/codex", "0.169.0"),
    "gemini": ("@google/gemini-cli", "0.61.0"),
    "opencode": ("opencode-ai", "1.18.33"),
    "conformance": ("@modelcontextprotocol/conformance", "0.2.0-alpha.12"),  # the first ones know no 2026 protocol
    "inspector": ("@modelcontextprotocol/inspector", "2.12.0"),
}
PROGRAMS: Final = {
    "node": "node",
    "claude-code": "claude",
    "claude-code-older": "claude",
    "codex": "codex",
    "gemini": "gemini",
    "opencode": "opencode",
    "conformance": "conformance",
    "inspector": "mcp-inspector",
}


def program(name: str) -> Path:
    """The program of a host."""
    return directory_of(name) / PROGRAMS[name]


def directory_of(name: str) -> Path:
    """The directory that has a host's program, for a PATH."""
    return LAB / name / "node_modules" / ".bin"


def run(name: str, *args: str, home: Path, timeout_s: float = 300, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with the Node of the lab and nothing of this machine's surroundings."""
    path = f"{directory_of('node')}:/usr/bin:/bin"
    return subprocess.run(
        [program(name), *args],
        cwd=home,
        env={"PATH": path, "HOME": str(home), "NO_COLOR": "1", "NODE_NO_WARNINGS": "1", **extra},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def missing() -> list[str]:
    """What is not installed in its pinned version."""
    return [name for name in VERSIONS if _installed(name) != VERSIONS[name][1]]


def install(name: str) -> None:
    """Install one program in its pinned version, with a home directory of its own for the scripts that packages run."""
    package, version = VERSIONS[name]
    place, home = LAB / name, LAB / "home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text(json.dumps({"private": True, "name": f"lab-{name}"}))
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("tests/hosts: npm is needed to install the programs under test")
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.lower().startswith("npm_config_")}
    subprocess.run(
        [npm, "install", "--cache", str(LAB / "npm-cache"), *_OPTIONS, f"{package}@{version}"],
        cwd=place,
        env=kept | {"HOME": str(home), "TMPDIR": str(home / "tmp")},
        check=True,
    )


_OPTIONS: Final = ("--no-audit", "--no-fund", "--loglevel=error", "--save-exact")
_KEPT: Final = ("PATH", "NODE_EXTRA_CA_CERTS", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def _installed(name: str) -> str:
    try:
        found = json.loads((LAB / name / "node_modules" / VERSIONS[name][0] / "package.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(found.get("version", ""))
