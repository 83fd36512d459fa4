"""The layering of `.importlinter` holds, and each of its contracts can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and its contracts that a test may break."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def plant(checkout: Path, module: str, statement: str) -> None:
    """Add a module that holds one import."""
    file = checkout / "src" / "claudemesh" / module
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(statement + "\n", encoding="utf-8")


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the copy; PYTHONPATH puts it before the installed package."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "COLUMNS": "200"}
    command = [sys.executable, "-c", LINT_IMPORTS, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_every_contract_holds_for_the_source_as_it_is(checkout: Path) -> None:
    """Without a planted import nothing is broken, so the failures below come from what they plant."""
    result = lint(checkout)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "BROKEN" not in result.stdout


@pytest.mark.parametrize(
    ("contract", "module", "statement"),
    [
        ("Dependencies point down", "protocol/planted.py", "import claudemesh.peer"),
        (
            "The broker cannot reach what opens an envelope",
            "broker/planted.py",
            "from claudemesh.crypto.envelope import *",
        ),
        ("The broker cannot reach what opens an envelope", "broker/planted.py", "import claudemesh.peer"),
        ("Protocol and crypto do no I/O and draw no clock or randomness", "crypto/planted.py", "import time"),
        ("Protocol and crypto do no I/O and draw no clock or randomness", "protocol/planted.py", "import asyncio"),
        ("Only crypto.primitives imports PyNaCl", "crypto/planted.py", "import nacl.public"),
        ("Only the transport and the broker's server import aiohttp", "peer/planted.py", "import aiohttp.web"),
        ("Only the broker's tracer imports OpenTelemetry", "broker/planted.py", "from opentelemetry import trace"),
        ("The HTTP server of MCP knows the daemon's local API alone", "mcp/http/planted.py", "import claudemesh.peer"),
        ("The HTTP server of MCP knows the daemon's local API alone", "mcp/options.py", "import claudemesh.peer"),
        ("Only the HTTP server of MCP imports uvicorn and starlette", "mcp/planted.py", "import uvicorn"),
        ("Only the MCP server imports its SDK", "daemon/planted.py", "import mcp"),
        ("In the daemon only daemon.app knows the broker", "daemon/planted.py", "import claudemesh.broker"),
        ("The command line sees the daemon's local API", "cli/planted.py", "import claudemesh.peer"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(checkout: Path, contract: str, module: str, statement: str) -> None:
    """Each contract fails by name on the import that it is there to forbid."""
    plant(checkout, module, statement)

    result = lint(checkout)

    assert result.returncode != 0
    assert broken_contracts(result.stdout) >= {contract}, result.stdout + result.stderr


def test_the_broker_cannot_reach_the_envelope_through_another_module(checkout: Path) -> None:
    """The end-to-end claim covers imports of imports."""
    plant(checkout, "protocol/planted.py", "import claudemesh.crypto.envelope")
    plant(checkout, "broker/planted.py", "import claudemesh.protocol.planted")

    result = lint(checkout)

    assert result.returncode != 0
    assert broken_contracts(result.stdout) == {"The broker cannot reach what opens an envelope"}


def test_no_module_lies_outside_the_contracts() -> None:
    """A directory without `__init__.py` is importable and yet unseen by import-linter."""
    package = ROOT / "src" / "claudemesh"

    unseen = [file for file in package.rglob("*.py") if not (file.parent / "__init__.py").exists()]

    assert unseen == []


def broken_contracts(report: str) -> set[str]:
    """The names, up to a comma, of the contracts that the report lists as broken."""
    return {line.split(" BROKEN")[0].split(",")[0].strip() for line in report.splitlines() if " BROKEN" in line}
