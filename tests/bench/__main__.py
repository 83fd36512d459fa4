"""Measure everything, or what is named: `python -m tests.bench [NAME…] [--list]`.

It is a report, not a test: the exit code is 0 whatever the figures are, and 1 when something crashed or
a message was lost. docs/benchmarks.md says what each figure means.
"""

import argparse
import importlib
import json
import os
import sys
import time
import traceback

from tests.bench import report
from tests.bench.processes import ROOT
from tests.bench.report import Figure

MODULES = {
    "startup": "starting the broker, and starting it again with 100,000 queued messages",
    "command_line": "the command line and an idle daemon",
    "hook_bench": "the process that a host starts at an event of a session",
    "mcp_bench": "the process that a host starts for a session, and what its tools cost a model",
    "store_bench": "the store alone",
    "channels_bench": "the cryptography of channels",
    "roster_bench": "joining a mesh of 1,000, and rosters of 10 to 10,000 entries",
    "long_roster_bench": "a roster as long as a broker lets it become",
    "fanout_bench": "one post to 1,000 links",
    "routing": "durable direct messages against the floor",
    "nats_bench": "the same frames through nats-server, as another floor",
    "postgres_bench": "durable direct messages on PostgreSQL",
    "cluster_bench": "two nodes, NATS and PostgreSQL, against one node; nodes that are killed",
    "tracing_bench": "a broker that sends traces against one that does not",
    "overload": "twice as many messages as the broker can carry",
    "idle_links": "5,000 idle links",
    "crowd": "10,000 idle links for a minute and a half",
    "end_to_end": "100 real peers, 1,000 messages each",
}
RESULT = ROOT / "build" / "bench.json"


def main() -> int:
    """Run the modules, print the table, write build/bench.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="modules to run (default: all)")
    parser.add_argument("--list", action="store_true", help="list the modules")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:16} {what}" for name, what in MODULES.items()))
        return 0
    unknown = [name for name in arguments.names if name not in MODULES]
    if unknown:
        parser.error(f"no module {unknown[0]}; --list shows them")
    return _run(arguments.names or list(MODULES), is_whole=not arguments.names)


def _run(names: list[str], is_whole: bool) -> int:
    started = time.monotonic()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    figures = {
        "load_average": Figure(round(busy, 2), "", os.cpu_count(), "before the first figure; the floor is the cores")
    }
    commands: dict[str, str] = {}
    failed: list[str] = []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}: {MODULES[name]}", flush=True)
        try:
            found = report.figures_of(importlib.import_module(f"tests.bench.{name}").measure())
        except Exception:  # noqa: BLE001 – one module must not take the other figures with it
            traceback.print_exc()
            failed.append(name)
            continue
        figures.update(found)
        commands.update(dict.fromkeys(found, f"make bench (python -m tests.bench {name})"))
    content = report.as_json(figures, commands)
    print(f"\n{report.table(content)}\n")
    report.write(RESULT, content if is_whole else _merged(content))
    print(f"{RESULT.relative_to(ROOT)} written after {time.monotonic() - started:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _merged(content: dict[str, object]) -> dict[str, object]:
    """The last whole report with the new figures in it."""
    last = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    return {**last, **content}


if __name__ == "__main__":
    sys.exit(main())
