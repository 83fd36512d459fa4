"""`python -m tests.hosts [pytest arguments]`: install the programs, then run the tests where nothing but loopback is.

The network namespace is the proof that no test needs the internet, and that no program under test can reach it.
"""

import os
import shutil
import sys

from tests.hosts import lab

TIMEOUT_S = "400"
NAMESPACE = 'ip link set lo up && exec "$@"'


def main() -> None:
    """Install what is missing, and become pytest inside a namespace of its own."""
    needed = [tool for tool in ("tmux", "ip", "unshare", "npm") if shutil.which(tool) is None]
    if needed:
        raise SystemExit(f"tests/hosts: please install {', '.join(needed)} (tmux, iproute2, util-linux, npm)")
    for name in lab.missing():
        print(f"installing {name} {lab.VERSIONS[name][1]} into {lab.LAB}", flush=True)
        lab.install(name)
    flags = "-n" if os.geteuid() == 0 else "-rn"
    pytest = [sys.executable, "-m", "pytest", "-n", "0", "--timeout", TIMEOUT_S, "tests/hosts", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", flags, "sh", "-c", NAMESPACE, "hosts", *pytest])


if __name__ == "__main__":
    main()
