"""Model-check the roster with Spin: the model must hold, and each control must break.

A control is the same model with one rule taken away. If it held too, the model would be too weak
to show that the rule is needed, so that is a failure as well. See formal/README.md.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
DEBIAN_PACKAGES = {"spin": "spin", "gcc": "gcc libc6-dev"}
MAX_DEPTH = 200_000


class Model(NamedTuple):
    """One Promela file, and the assertion that breaks in it (None: none may)."""

    name: str
    broken_assertion: str | None


MODELS = (
    Model("roster", None),
    Model("roster_nocas", "!((ma&&mb))"),
    Model("roster_nogossip", "kn"),
)


class ToolFailed(Exception):
    """Spin, the C compiler or the verifier itself stopped; nothing was proved."""


def main() -> int:
    """Return 0 when every model behaves as its row in MODELS says."""
    missing = [tool for tool in DEBIAN_PACKAGES if shutil.which(tool) is None]
    if missing:
        packages = " ".join(DEBIAN_PACKAGES[tool] for tool in missing)
        print(f"formal: {' and '.join(missing)} not found. On Debian or Ubuntu: apt-get install {packages}")
        return 1
    results = [check(model) for model in MODELS]
    print("formal: all models behave as expected" if all(results) else "formal: FAILED")
    return 0 if all(results) else 1


def check(model: Model) -> bool:
    """Print one line for `model`; True when its verdict is the expected one."""
    print(f"formal: {model.name} …", end=" ", flush=True)
    started = time.monotonic()
    try:
        report = explore(model.name)
        accepted, verdict = judge(model, report)
    except ToolFailed as failure:
        accepted, verdict = False, str(failure)
    print(f"{'ok' if accepted else 'FAILED'}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    return accepted


def explore(name: str) -> str:
    """Build the verifier of one model in a directory of its own and return what it reports."""
    with tempfile.TemporaryDirectory(prefix="claudemesh-formal-") as directory:
        work = Path(directory)
        shutil.copy(HERE / f"{name}.pml", work)
        output_of(work, "spin", "-a", f"{name}.pml")
        # Spin's generated C draws bounds warnings that say nothing about the model.
        output_of(work, "gcc", "-w", "-O2", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c")
        return output_of(work, "./pan", f"-m{MAX_DEPTH}", "-E")


def output_of(work: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=work, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise ToolFailed(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


def judge(model: Model, report: str) -> tuple[bool, str]:
    """Compare the verifier's report with what the model must show."""
    errors = re.search(r"errors: (\d+)", report)
    states = re.search(r"([\de.+]+) states, stored", report)
    if errors is None or states is None:
        return False, f"the verifier's report has no verdict:\n{report}"
    violated = re.search(r"assertion violated (.+?) \(at depth", report)
    if model.broken_assertion is None:
        complete = "Search not completed" not in report and "max search depth too small" not in report
        return (
            errors[1] == "0" and complete,
            f"{errors[1]} errors, {states[1]} states{', all of them' if complete else ', search cut short'}",
        )
    if violated is None:
        return False, f"the control holds ({states[1]} states), so the model does not need the rule it lacks"
    assertion = violated[1].strip()
    return assertion == model.broken_assertion, f"broken at assert({assertion}), as a control must be"


if __name__ == "__main__":
    sys.exit(main())
