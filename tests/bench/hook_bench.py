"""hook_ms: the process that a host starts at an event, from its start to its end, with a message that it hands over."""

import json
import statistics
import subprocess
import sys
import time

from tests.bench.command_line import User, bare_ms, two_users
from tests.bench.report import Figure

RUNS = 20
WARM_UP_RUNS = 3
SESSION = "5e551011"


def measure() -> dict[str, Figure]:
    """Alice sends, then the end of a turn of Bob's agent is reported, as Claude Code reports it."""
    took, bare = [], []
    with two_users() as (alice, bob):
        _event(bob, "SessionStart")
        _event(bob, "UserPromptSubmit")
        for number in range(WARM_UP_RUNS + RUNS):
            alice.run("send", "bob", f"message {number}", "--wait", "delivered")
            milliseconds, shown = _event(bob, "Stop")
            if f"| message {number}" not in shown:
                raise RuntimeError(f"the hook does not hand over what was sent: {shown[:200]!r}")
            took.append(milliseconds)
            bare.append(bare_ms())
    return {
        "hook_ms": Figure(
            round(statistics.median(took[WARM_UP_RUNS:]), 1),
            "ms",
            round(statistics.median(bare[WARM_UP_RUNS:]), 1),
            f"whole process that hands over one message, median of {RUNS}; the floor is `python -c pass`",
        )
    }


def _event(user: User, name: str) -> tuple[float, str]:
    """Milliseconds of one hook, and what it wrote."""
    given = {"hook_event_name": name, "session_id": SESSION, "cwd": "/src/payments-api"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "claudemesh", "hook", "claude-code"],
        input=json.dumps(given),
        env={**user.environment, "CLAUDE_CODE_ENTRYPOINT": "cli"},
        capture_output=True,
        text=True,
        check=True,
    )
    return (time.perf_counter() - began) * 1_000, done.stdout
