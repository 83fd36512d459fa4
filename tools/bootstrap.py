"""Create `.venv` from the locked dependencies, or do nothing when it already matches them.

Runs on the bare interpreter, so it imports nothing but the standard library and parses on old
versions in order to refuse them in words. A stamp inside `.venv` names the lock it was built from.
"""

import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements" / "dev.txt"
STAMP = VENV / ".lock-digest"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST_PYTHON = (3, 11)


def main():
    """Return 0 once `.venv` holds exactly what the lock names and the editable package."""
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        return refuse(f"Python 3.11 or newer is needed, this is {found}. Try: make PYTHON=python3.12")
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if is_ready(wanted):
        return 0
    with only_one_at_a_time():
        if is_ready(wanted):
            return 0
        return build(wanted)


def is_ready(wanted):
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted


def build(wanted):
    say("creating .venv")
    if not runs(sys.executable, "-m", "venv", *clear_if_broken(), str(VENV)):
        return refuse("could not create a virtual environment. On Debian or Ubuntu: apt-get install python3-venv")
    say("installing the locked dependencies (about 30 MB, checked against their hashes)")
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install")
    if not runs(*pip, "--require-hashes", "-r", str(LOCK)):
        return refuse("the locked dependencies could not be installed; pip's message is above")
    say("installing claudemesh itself, editable")
    if not runs(*pip, "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)):
        return refuse("claudemesh itself could not be installed; pip's message is above")
    STAMP.write_text(wanted, encoding="utf-8")
    say("ready")
    return 0


def clear_if_broken():
    """A moved or upgraded interpreter leaves an environment that cannot start; that one is rebuilt from nothing."""
    healthy = PYTHON.exists() and runs(str(PYTHON), "-c", "import pip", stderr=subprocess.DEVNULL)
    return () if healthy or not VENV.exists() else ("--clear",)


@contextmanager
def only_one_at_a_time():
    """Let two `make` runs in one checkout not install over each other."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def runs(*command, **options):
    try:
        return subprocess.run(command, check=False, **options).returncode == 0
    except OSError:
        return False


def say(text):
    print(f"bootstrap: {text}", flush=True)


def refuse(reason):
    print(f"bootstrap: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
