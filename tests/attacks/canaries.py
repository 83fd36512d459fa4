"""Strings and keys that must not be found anywhere but with the peers, and where to look for them."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from claudemesh.crypto.invite import parse_link
from tests.attacks.key_attacks import config_secrets
from tests.attacks.search import search_bytes, search_file

MARK: Final = "Kanarienvogel7Qz"
"""Part of every canary text, name and path, so that one search finds any of them."""


CHANNEL_MARK: Final = MARK.lower()
"""The same in channels' and groups' names, which have no capitals."""


def canary(purpose: str) -> str:
    """A text that is recognised wherever it turns up."""
    return f"{MARK}-{purpose}"


@dataclass
class Canaries:
    """What is sought."""

    secrets: dict[str, bytes] = field(default_factory=dict)

    def add_config(self, owner: str, directory: Path) -> None:
        """Every secret that a configuration holds now."""
        for number, secret in enumerate(config_secrets(directory)):
            self.secrets[f"{owner}'s secret {number}"] = secret

    def add_link(self, purpose: str, text: str) -> None:
        """An invite link: its secret part, the seeds in it, and the key that it stands for."""
        link = parse_link(text)
        self.secrets[f"text of {purpose}"] = text.partition("#")[2].partition(".")[0].encode()[22:]
        self.secrets[f"seed of {purpose}"] = link.seed
        self.secrets[f"key of {purpose}"] = link.invite_key().secret[:32]
        user = link.user_key()
        if link.user_seed is not None and user is not None:
            self.secrets[f"user seed of {purpose}"] = link.user_seed
            self.secrets[f"user key of {purpose}"] = user.secret[:32]

    def needles(self) -> dict[str, bytes]:
        return {"a canary text": MARK.encode(), "a canary channel": CHANNEL_MARK.encode(), **self.secrets}

    def found_in_bytes(self, haystack: bytes) -> set[str]:
        return search_bytes(haystack, self.needles())

    def found_in_file(self, path: Path) -> set[str]:
        return search_file(path, self.needles())


def dump_memory(process_id: int, directory: Path) -> Path:
    """A core dump of a running process, by gdb."""
    tool = shutil.which("gcore")
    assert tool is not None, "gcore is missing: install gdb (Debian: apt-get install gdb), as .ci/run does"
    done = subprocess.run(
        [tool, "-o", str(directory / "core"), str(process_id)], capture_output=True, text=True, check=False
    )
    core = directory / f"core.{process_id}"
    assert core.exists(), f"gcore wrote no core dump; is ptrace allowed? {done.stdout[-300:]} {done.stderr[-300:]}"
    return core
