"""`python -m tests.bench.quote`: put the figures of the last `make bench` into the README.

A figure that was not measured is left out; nothing is rounded in our favour.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.bench.__main__ import RESULT
from tests.bench.processes import ROOT

PAGE: Final = ROOT / "README.md"
BEGIN: Final = "<!-- figures: make bench && python -m tests.bench.quote -->\n"
END: Final = "<!-- end of figures -->"
QUOTED: Final = {
    "durable_dm_per_s": "messages a second through one broker on SQLite, accepted, pushed, deleted; floor: no storage",
    "durable_dm_per_s_pg": "the same on PostgreSQL, its server on the same cores",
    "durable_dm_per_s_cluster": "the same through two nodes with NATS and PostgreSQL, half of the messages crossing",
    "cluster_cpu_us": "processor time of such a message, all processes together; floor: one node",
    "floor_nats_per_s": "the frames alone through nats-server: nothing checked, signed or stored",
    "dm_p50_ms_at_2000": "submit to push at 2,000 messages a second, median",
    "dm_p99_ms_at_2000": "the same, 99th percentile",
    "overload_p99_ms": "the same for what is admitted at twice the sustainable rate",
    "overload_rss_growth_mb": "growth of its memory meanwhile",
    "e2e_100x1000_s": "100 peers write 1,000 messages each, sealed and opened; floor: the cryptography alone",
    "failover_s": "a node is killed: until mail goes both ways again, worst of three",
    "fanout_1000_ms": "one post to 1,000 links",
    "rotate_1000_ms": "a new secret for 1,000 members, uploaded",
    "join_1000_ms": "from a link to the first message, a log of 1,000 verified",
    "idle_links_10000_rss_mb": "memory of a broker with 10,000 idle links",
    "idle_links_10000_cpu_percent": "its share of one core",
    "idle_links_10000_dropped": "how many of those links it lost",
    "broker_start_ms": "start of a broker until it is ready",
    "cli_send_ms": "a whole `claudemesh send`; floor: a Python that does nothing",
    "hook_ms": "a whole hook process of an agent's host; floor: a Python that does nothing",
    "mcp_shim_start_ms": "start of an agent's MCP server until its handshake is answered",
    "mcp_shim_rss_mb": "its memory",
    "daemon_rss_mb": "memory of an idle daemon",
    "tool_tokens": "what the six tools cost a model's context",
}


def table(content: Mapping[str, Any]) -> str:
    """The quoted figures as Markdown.

    Args:
        content: As build/bench.json has it.
    """
    rows = ["| figure | measured | floor in the same run | aim |", "|---|---|---|---|"]
    for name, what in QUOTED.items():
        row = content.get(name)
        if row is not None:
            floor = "" if row["floor"] is None else f"{_number(row['floor'])} (× {row['ratio']:.2f})"
            rows.append(f"| {what} | {_number(row['value'])} {row['unit']} | {floor} | {row['target'] or ''} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Put the table into the page."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no place for the figures: {BEGIN.strip()} … {END}")
    PAGE.write_text(before + BEGIN + "\n" + table(json.loads(RESULT.read_text())) + "\n" + END + after)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def _number(value: float) -> str:
    """Three digits at least, thousands with commas."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


if __name__ == "__main__":
    main()
