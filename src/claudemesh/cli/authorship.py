"""Who types a command: a person at a terminal, an agent in the shell that its host gave it, or nobody knows."""

import os
import sys
from collections.abc import Mapping
from typing import Final, Literal

AGENT_SHELLS: Final = (
    "CLAUDECODE",
    "CODEX_SANDBOX",
    "CODEX_THREAD_ID",
    "CODEX_CI",
    "GEMINI_CLI",
    "OPENCODE",
    "AI_AGENT",
)
"""What hosts of agents set in the shells that their agents use."""

Author = Literal["person", "agent", ""]


def author(environment: Mapping[str, str] = os.environ) -> Author:
    """Who writes what this command sends; empty where a script, a job or anything else may run it."""
    if any(environment.get(name) for name in AGENT_SHELLS):
        return "agent"
    return "person" if sys.stdin.isatty() and sys.stdout.isatty() else ""
