"""`python -m claudemesh`."""

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. What a host starts at every event is answered without importing it."""
    if len(sys.argv) == 3 and sys.argv[1] == "hook" and not sys.argv[2].startswith("-"):
        from claudemesh.hosts.calling import main as answer_hook

        sys.exit(answer_hook(sys.argv[2]))
    if sys.argv[1:2] == ["mcp"]:
        from claudemesh.mcp.pump import main as carry

        exit_code = carry(sys.argv[2:])
        if exit_code is not None:
            sys.exit(exit_code)
    gc.disable()  # what an import makes is there to stay: looking for garbage in it costs each command 2 ms
    from claudemesh.cli.main import main as run_command

    gc.freeze()
    gc.enable()
    run_command()


if __name__ == "__main__":
    main()
