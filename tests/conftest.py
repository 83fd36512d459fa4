"""What every tier shares: a test may say in one line what it did (`record_property("summary", …)`)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import tally

LEFT_OUT = "not part of it: the tests with the real agent programs (about 2 GB); run them with `make test-hosts`"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tests' summaries at the end, also of those that ran in another process."""
    for test, value in _said(terminalreporter, "summary"):
        terminalreporter.write_line(f"{test}: {value}")
    for line in tally.summarise(world for _, world in _said(terminalreporter, tally.PROPERTY)):
        terminalreporter.write_line(line)
    if any(str(path).endswith("hosts") for path in terminalreporter.config.getoption("ignore") or ()):
        terminalreporter.write_line(LEFT_OUT)


def _said(terminalreporter: pytest.TerminalReporter, name: str) -> Iterator[tuple[str, Any]]:
    """What tests recorded under a name."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            if getattr(report, "when", "") == "call":
                for recorded, value in report.user_properties:
                    if recorded == name:
                        yield report.nodeid.rpartition("::")[2], value
