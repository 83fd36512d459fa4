"""Fail when a tracked file names a package registry or a path of the machine it was written on.

Either one makes a checkout work, or seem to work, only where it was made.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Joined here so that this file passes its own check.
REGISTRY_HOSTS = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
    )
]
PIP_INDEX_OPTIONS = ["--" + option for option in ("index-url", "extra-index-url", "find-links", "trusted-host")]

# Documentation may show the home directory of these people; nobody builds there.
EXAMPLE_PEOPLE = "alice|bob|carol|dave|erin|you|user|me"
HOME_DIRECTORY = re.compile(rf"(?<![\w.~-])/(?:home|Users)/(?!(?:{EXAMPLE_PEOPLE})\b)[\w.-]+/")
BUILD_WORKSPACE = re.compile(r"(?<![\w./~*$}-])/(?:work|workspace|workspaces|builds)/\w+")
WINDOWS_HOME = re.compile(rf"[A-Za-z]:\\Users\\(?!(?:{EXAMPLE_PEOPLE})\b)\w+")


def main() -> int:
    """Print every finding as `path:line: reason`; return 1 when there is one."""
    findings = [finding for path in tracked_files() for finding in problems_of(path)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def problems_of(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        for reason in reasons_against(line):
            yield f"{path.relative_to(ROOT)}:{number}: {reason}"


def reasons_against(line: str) -> Iterator[str]:
    for word in (*REGISTRY_HOSTS, *PIP_INDEX_OPTIONS):
        if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", line):
            yield f"names a package registry ({word})"
    for place in own_places():
        if re.search(rf"(?<![\w.]){re.escape(place)}(?=[/\s\"'`:,)]|$)", line):
            yield f"names this machine's path {place}"
    for pattern in (HOME_DIRECTORY, WINDOWS_HOME, BUILD_WORKSPACE):
        if found := pattern.search(line):
            yield f"names a directory of the machine it was written on ({found.group()})"


def own_places() -> list[str]:
    """The checkout and the home directory of whoever runs this; a root directory says nothing."""
    return [str(place) for place in (ROOT, Path.home()) if len(place.parts) > 1]


if __name__ == "__main__":
    sys.exit(main())
