"""The official conformance suite of the Model Context Protocol, against our HTTP server with a real daemon in a mesh.

A check that fails must stand in `conformance_expected.toml` with its reason; one that stands there must fail.
"""

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hosts import lab
from tests.mcp_clients import pair_of_machines
from tests.mcp_http import http_server
from tests.processes import free_port, wait_until

ALL = ""
"""Every scenario of the suite, those of extensions included, each in the newest version that it knows."""
VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28", ALL)
EXPECTED = Path(__file__).with_name("conformance_expected.toml")
_SCENARIO = re.compile(r"^  - (\S+) \[(.*)\]$", re.MULTILINE)

Checks = dict[str, bool]
"""Whether each check passed, by `scenario/check`."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the suite reaches our server: through a proxy that adds the token, for it can send none itself."""
    with ExitStack() as stack:
        pair = stack.enter_context(pair_of_machines(tmp_path_factory.mktemp("pair")))
        port = free_port()
        hosts = [word for host in ("127.0.0.1", "localhost") for word in ("--allow-host", f"{host}:{port}")]
        server = stack.enter_context(http_server(pair.bob, *hosts))
        upstream = server.url.removesuffix("/mcp")
        command = [sys.executable, "-m", "tests.hosts.token_proxy", str(port), upstream]
        proxy = subprocess.Popen(command, cwd=lab.ROOT, stdin=subprocess.PIPE, text=True)
        stack.callback(proxy.wait)
        stack.callback(proxy.kill)
        assert proxy.stdin is not None
        with proxy.stdin:
            proxy.stdin.write(server.token())
        wait_until(lambda: _listens(port), "the proxy listens")
        yield f"http://localhost:{port}/mcp"


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Checks]:
    """What each run found, for the test of the list at the end."""
    return {}


@pytest.mark.parametrize("version", VERSIONS, ids=lambda one: one or "all")
def test_our_server_conforms(version: str, url: str, outcomes: dict[str, Checks], tmp_path: Path) -> None:
    """Every scenario that the suite has for a version ran, and what failed is what is known to."""
    chosen = ("--spec-version", version) if version else ()

    result = lab.run(
        "conformance", "server", "--url", url, "--suite", "all", "-o", str(tmp_path / "found"), *chosen, home=tmp_path
    )
    scenarios, outcomes[version] = _read(tmp_path / "found")
    failed = {check for check, passed in outcomes[version].items() if not passed}

    assert scenarios == _scenarios(version, tmp_path), result.stdout + result.stderr
    assert failed - set(_expected()) == set()
    assert {check for check in _expected() if outcomes[version].get(check)} == set()


def test_the_list_holds_nothing_that_no_longer_fails(outcomes: dict[str, Checks]) -> None:
    """Each check in it ran, and failed; each has a reason."""
    failed = {check for found in outcomes.values() for check, passed in found.items() if not passed}

    assert set(outcomes) == set(VERSIONS)
    assert set(_expected()) - failed == set()
    assert all(len(reason) > 20 for reason in _expected().values())


def _expected() -> dict[str, str]:
    """The reason of each check that is known to fail."""
    groups = tomllib.loads(EXPECTED.read_text())["expected"]
    return {check: group["reason"] for group in groups for check in group["checks"]}


def _scenarios(version: str, home: Path) -> set[str]:
    """What the suite says that it has."""
    listed = _SCENARIO.findall(lab.run("conformance", "list", "--server", home=home).stdout)
    return {name for name, versions in listed if version in ("", *versions.split(","))}


def _read(directory: Path) -> tuple[set[str], Checks]:
    """The scenarios that ran, and their checks. A warning, about what a server should do, counts as a failure."""
    scenarios: set[str] = set()
    checks: Checks = {}
    for file in directory.glob("*/checks.json"):
        scenario = re.sub(r"^server-|-\d{4}-\d\d-\d\dT[\d-]+Z$", "", file.parent.name)
        scenarios.add(scenario)
        for check in json.loads(file.read_text()):
            name, status = f"{scenario}/{check['id']}", check["status"]
            if status != "INFO":
                checks[name] = checks.get(name, True) and status in ("SUCCESS", "SKIPPED")
    return scenarios, checks


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
