"""What every tier shares: a test may say in one line what it did (`record_property("summary", …)`)."""

import pytest

LEFT_OUT = "not part of it: the tests with the real agent programs (about 2 GB); run them with `make test-hosts`"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tests' summaries at the end, also of those that ran in another process."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "summary" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")
    if any(str(path).endswith("hosts") for path in terminalreporter.config.getoption("ignore") or ()):
        terminalreporter.write_line(LEFT_OUT)
