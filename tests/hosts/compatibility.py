"""What works with which host, by the tests' own results: `python -m tests.hosts.compatibility` writes it into a page.

Every run leaves the outcomes of its tests in `build/hosts-results.json`, where each test's latest one stands.
"""

import json
from pathlib import Path
from typing import Final

from tests.hosts import lab

RESULTS: Final = lab.ROOT / "build" / "hosts-results.json"
PAGE: Final = lab.ROOT / "docs" / "hosts.md"
BEGIN: Final = "<!-- from the tests' results: python -m tests.hosts.compatibility -->\n"
END: Final = "<!-- end -->"
HOSTS: Final = {
    "claude-code": "Claude Code",
    "codex": "Codex CLI",
    "gemini": "Gemini CLI",
    "opencode": "opencode",
}
WITH_CLAUDE_CODE: Final = ("test_walkthrough", "test_bad_input", "test_full_disk")
"""Tests that say in no name which host they are with."""


def table(results: dict[str, str]) -> str:
    """One row for each claim that is still tested, file by file.

    Args:
        results: The outcome of each test, by its node id.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for node, outcome in sorted(results.items(), key=lambda one: one[0].partition("::")[0]):
        if not _exists(node):
            continue
        for name in _hosts_of(node):
            found.setdefault((name, _claim(node)), set()).add(outcome)
    rows = ["| host | version | claim | result |", "|---|---|---|---|"]
    for (name, claim), outcomes in found.items():
        result = ", ".join(sorted(outcomes))
        rows.append(f"| {HOSTS[name]} | {_version(name, claim)} | {claim} | {result} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Put the table of the last whole run into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n" + table(json.loads(RESULTS.read_text())) + "\n" + END + after)
    print(f"wrote {Path(PAGE).relative_to(lab.ROOT)}")


def _exists(node: str) -> bool:
    """Whether a test is still there under the name by which it left its outcome."""
    file, _, function = node.partition("[")[0].partition("::")
    path = lab.ROOT / file
    return path.exists() and f"def {function}(" in path.read_text()


def _hosts_of(node: str) -> list[str]:
    if "test_mcp_" in node:  # about the protocol, with no host
        return []
    if any(file in node for file in WITH_CLAUDE_CODE):
        return ["claude-code"]
    named = [name for name in HOSTS if name in node.replace("_", "-")]
    return named or list(HOSTS)


def _version(name: str, claim: str) -> str:
    older = f"{name}-older"
    return lab.VERSIONS[older if older in lab.VERSIONS and "older" in claim else name][1]


def _claim(node: str) -> str:
    """A test's name; its cases are one claim."""
    return node.rpartition("::")[2].removeprefix("test_").partition("[")[0].replace("_", " ")


if __name__ == "__main__":
    main()
