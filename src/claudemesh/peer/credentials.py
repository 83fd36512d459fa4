"""What looks like a credential in a text that is about to leave (docs/spec/holding.md §5).

The detectors are those of detect-secrets, imported at the first check. None of them is asked to verify a finding: that
would send it to somebody. Nothing here keeps, logs or returns what was found, only where and of which kind.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from claudemesh.errors import LocalError

MAX_FINDINGS: Final = 8
"""More are not named: the first one is reason enough."""
WINDOW_CHARACTERS: Final = 768
"""The detectors' patterns take up to cubic time in the length of a line, so that a longer one is looked at in parts."""
OVERLAP_CHARACTERS: Final = 256
"""What two neighbouring parts share, so that a credential across their border is whole in one of them."""
MAX_SECONDS: Final = 5.0
"""Of the processor's time. A text made to be slow is not sent unchecked: it counts as a finding."""
NOT_CHECKED: Final = "takes too long to check"
_GUESSES: Final = frozenset({"Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)"})
"""Detectors that take a commit's hash, a peer's key or an address for a secret."""


class Finding(NamedTuple):
    """Where something looks like a credential, and like which."""

    line: int
    """From 1."""
    kind: str
    """The detector's name, such as `AWS Access Key`."""


def find_credentials(text: str, max_seconds: float = MAX_SECONDS) -> tuple[Finding, ...]:
    """Look through a text; takes about 80 µs for a line, and a second or two for 512 KiB.

    Returns:
        The first `MAX_FINDINGS`, each kind once for a line, in the order of the lines. A text that cannot be looked
        through in `max_seconds` of this thread's time has a finding of the kind `NOT_CHECKED` where that was given up.
    """
    found: dict[Finding, None] = {}
    ends_at = time.thread_time() + max_seconds  # a laptop that was closed, or a busy machine, makes no text suspicious
    for number, line in enumerate(text.splitlines(), 1):
        for part in _parts(line):
            if time.thread_time() > ends_at:
                return (*found, Finding(number, NOT_CHECKED))
            found |= dict.fromkeys(Finding(number, kind) for kind in _kinds(part))
            if len(found) >= MAX_FINDINGS:
                return tuple(found)[:MAX_FINDINGS]
    return tuple(found)


async def require_no_credentials(text: str) -> None:
    """Look through a text in a thread.

    Raises:
        LocalError: `credential`, with the lines and kinds, never the text. Nothing was sent or stored.
    """
    findings = await asyncio.to_thread(find_credentials, text)
    if findings:
        raise LocalError("credential", describe(findings))


def describe(findings: Sequence[Finding]) -> str:
    """Findings in words: `line 3 looks like a credential (AWS Access Key)`."""
    return "; ".join(
        f"line {one.line} {one.kind}"
        if one.kind == NOT_CHECKED
        else f"line {one.line} looks like a credential ({one.kind})"
        for one in findings
    )


def _kinds(part: str) -> Iterator[str]:
    for detector in _detectors():
        # A detector that parses what it found may fail on it: then it is not that kind of credential.
        with contextlib.suppress(ValueError):
            if any(True for _ in detector.analyze_string(part)):
                yield detector.secret_type


def _parts(line: str) -> Iterator[str]:
    """A line in pieces that overlap; nothing of a blank one."""
    if not line.strip():
        return
    for start in range(0, max(len(line) - OVERLAP_CHARACTERS, 1), WINDOW_CHARACTERS - OVERLAP_CHARACTERS):
        yield line[start : start + WINDOW_CHARACTERS]


@cache
def _detectors() -> tuple[Any, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    makers: dict[str, Any] = dict(get_mapping_from_secret_type_to_class())
    return tuple(make() for kind, make in makers.items() if kind not in _GUESSES)
