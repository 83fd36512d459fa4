"""What a region of many sessions needs, simulated second by second from what one unit costs (docs/scale.md).

    python tools/scale.py                       # a million sessions
    python tools/scale.py --sessions 5000000 --json
    python tools/scale.py --write               # into docs/scale.md, after tools/unit_costs.toml was changed

The costs are those of tools/unit_costs.toml. Nothing here is measured: it is arithmetic over time, with a day's
curve, the loss of a node at the worst moment, and everybody of that node coming back.
"""

import argparse
import json
import math
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNIT_COSTS = ROOT / "tools" / "unit_costs.toml"
DOCUMENT = ROOT / "docs" / "scale.md"
DAY_S = 86_400
HOUR_S = 3_600


@dataclass(frozen=True)
class Costs:
    """One unit of each, on one core; tools/unit_costs.toml says what each is, and which command measures it."""

    message_node_us: float
    message_database_us: float
    hint_us: float
    hello_us: float
    ping_us: float
    link_kb: float
    node_mb: float
    message_wal_bytes: float
    audit_bytes: float

    @classmethod
    def measured(cls) -> "Costs":
        """As they stand in the table."""
        return cls(**{name: row["value"] for name, row in unit_costs().items()})


@dataclass(frozen=True)
class Load:
    """What people do."""

    sessions: int = 1_000_000
    sessions_per_link: float = 2.5
    """Sessions of one machine share their daemon's link."""
    busy_share: float = 0.25
    """Sessions at work at the day's peak."""
    messages_per_busy_minute: float = 1.5
    """Of one session at work, receipts included."""
    recipients: float = 1.6
    """Mailboxes per message: most are direct, some go to a channel."""
    night_share: float = 0.3
    """Of the peak, at the quietest hour."""
    ping_every_s: float = 25.0
    back_within_s: float = 30.0
    """Full jitter of those that lost their link."""


@dataclass(frozen=True)
class Cell:
    """Nodes, one PostgreSQL and one NATS that serve some meshes whole; a region is as many as it needs."""

    nodes: int = 3
    cores_per_node: int = 1
    """A node is one process; its database thread has some of a second core."""
    database_cores: int = 8
    database_wal_mb_per_s: float = 150.0
    """What one disk syncs without getting slower."""
    filled_to: float = 0.6
    """Of the first resource that runs out, at the peak and with one node lost."""
    storm_to: float = 0.9
    """Of the other nodes' processors, while the links of a lost one come back."""


@dataclass
class Need:
    """What one cell and the region come to."""

    cells: int
    nodes: int
    sessions_per_cell: int
    first_limit: str
    messages_per_s: float
    node_cpu: float
    database_cpu: float
    database_wal: float
    hints_per_s_and_node: float
    node_memory_mb: float
    audit_gb_per_day: float
    lost_links: int
    peak_cpu_after_loss: float
    back_after_s: float
    """Until everybody of a lost node is connected again."""
    late_after_loss_s: float
    """The longest that a message waits meanwhile."""


def main() -> int:
    """Print what a region needs."""
    parser = argparse.ArgumentParser(prog="python tools/scale.py", description=__doc__)
    parser.add_argument("--sessions", type=int, default=Load.sessions)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/scale.md anew")
    chosen = parser.parse_args()
    if chosen.write:
        DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    found = needed(Load(sessions=chosen.sessions), Cell(), Costs.measured())
    if chosen.json:
        print(json.dumps(asdict(found)))
    else:
        print("\n".join(table(found)))
    return 0


def needed(load: Load, cell: Cell, costs: Costs, seed: int = 1) -> Need:
    """Size a cell by its first limit, then lose one of its nodes at the peak of the day."""
    per_cell = _largest_cell(load, cell, costs)
    cells = math.ceil(load.sessions / per_cell)
    usage = _usage(load, cell, costs, load.sessions / cells, cell.nodes)
    loss = _lose_a_node(load, cell, costs, load.sessions / cells, random.Random(seed))
    return Need(
        cells=cells,
        nodes=cells * cell.nodes,
        sessions_per_cell=round(load.sessions / cells),
        first_limit=max(_usage(load, cell, costs, per_cell, cell.nodes - 1).items(), key=lambda item: item[1])[0],
        messages_per_s=_messages_per_s(load, load.sessions),
        node_cpu=usage["node CPU"],
        database_cpu=usage["database CPU"],
        database_wal=usage["database log"],
        hints_per_s_and_node=_hints_per_s(_messages_per_s(load, load.sessions / cells), cell.nodes),
        node_memory_mb=costs.node_mb + _links(load, load.sessions / cells) / cell.nodes * costs.link_kb / 1_024,
        audit_gb_per_day=_messages_per_day(load) * costs.audit_bytes / 1e9,
        lost_links=loss.links,
        peak_cpu_after_loss=loss.peak_cpu,
        back_after_s=loss.back_after_s,
        late_after_loss_s=loss.late_s,
    )


def table(need: Need) -> Iterator[str]:
    """As rows of Markdown."""
    rows = {
        "cells (each: nodes, one PostgreSQL, one NATS)": f"{need.cells:,}",
        "broker nodes": f"{need.nodes:,}",
        "sessions per cell": f"{need.sessions_per_cell:,}",
        "what a larger cell would run out of first": need.first_limit,
        "messages stored at the peak, region": f"{need.messages_per_s:,.0f}/s",
        "a node's processor at the peak": f"{need.node_cpu:.0%}",
        "PostgreSQL's processors at the peak": f"{need.database_cpu:.0%}",
        "PostgreSQL's log at the peak": f"{need.database_wal:.0%}",
        "hints that a node gets": f"{need.hints_per_s_and_node:,.0f}/s",
        "memory of a node": f"{need.node_memory_mb:,.0f} MB",
        "audit log, region": f"{need.audit_gb_per_day:,.0f} GB a day",
        "links that a lost node leaves": f"{need.lost_links:,}",
        "the others' processor while they come back": f"{need.peak_cpu_after_loss:.0%}",
        "all are back after": f"{need.back_after_s:.0f} s",
        "the longest wait of a message meanwhile": f"{need.late_after_loss_s:.1f} s",
    }
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {value} |" for name, value in rows.items())


@dataclass
class _Loss:
    links: int
    peak_cpu: float
    back_after_s: float
    late_s: float


def _lose_a_node(load: Load, cell: Cell, costs: Costs, sessions: float, chance: random.Random) -> _Loss:
    """The links of one node dial the others, each at its own moment; what a node cannot do in a second waits."""
    links = round(_links(load, sessions) / cell.nodes)
    others = cell.nodes - 1
    due = sorted(chance.random() * load.back_within_s for _ in range(links))
    steady_us = _usage(load, cell, costs, sessions, others)["node CPU"] * 1e6 * cell.cores_per_node
    backlog_us = peak = late = 0.0
    second = at = 0
    back_after = 0.0
    while at < len(due) or backlog_us > 0:
        arrived = at
        while at < len(due) and due[at] < second + 1:
            at += 1
        backlog_us += steady_us + (at - arrived) / others * costs.hello_us
        done = min(backlog_us, 1e6 * cell.cores_per_node)
        backlog_us -= done
        peak = max(peak, done / 1e6 / cell.cores_per_node)
        late = max(late, backlog_us / 1e6 / cell.cores_per_node)
        second += 1
        if at == len(due):
            back_after = second + backlog_us / 1e6 / cell.cores_per_node
            break
        if second > HOUR_S:
            return _Loss(links, 1.0, math.inf, math.inf)
    return _Loss(links, peak, back_after, late)


def _largest_cell(load: Load, cell: Cell, costs: Costs) -> float:
    """Sessions of a cell that is as full as it may be, with one node lost."""
    low, high = 0.0, float(load.sessions)
    for _ in range(60):
        middle = (low + high) / 2
        if max(_usage(load, cell, costs, middle, cell.nodes - 1).values()) <= cell.filled_to:
            low = middle
        else:
            high = middle
    return low or 1.0


def _usage(load: Load, cell: Cell, costs: Costs, sessions: float, nodes: int) -> dict[str, float]:
    """What share of each resource a cell uses at the day's peak."""
    per_s = _messages_per_s(load, sessions)
    pings = _links(load, sessions) / load.ping_every_s
    hints = _hints_per_s(per_s, nodes)
    node_us = (per_s * costs.message_node_us + pings * costs.ping_us) / nodes + hints * costs.hint_us
    node_cpu = node_us / 1e6 / cell.cores_per_node
    dialling = _links(load, sessions) / (nodes + 1) / load.back_within_s / nodes * costs.hello_us / 1e6
    return {
        "node CPU": node_cpu,
        "node CPU, while the links of a lost node come back": (node_cpu + dialling) * cell.filled_to / cell.storm_to,
        "database CPU": per_s * costs.message_database_us / 1e6 / cell.database_cores,
        "database log": per_s * costs.message_wal_bytes / 1e6 / cell.database_wal_mb_per_s,
    }


def _hints_per_s(per_s: float, nodes: int) -> float:
    """What each node gets: a message for a mailbox on another node is a hint to all of them."""
    return per_s * (1 - 1 / nodes)


def _links(load: Load, sessions: float) -> float:
    return sessions / load.sessions_per_link


def _messages_per_s(load: Load, sessions: float) -> float:
    """Mailbox rows a second, at the peak."""
    return sessions * load.busy_share * load.messages_per_busy_minute / 60 * load.recipients


def _messages_per_day(load: Load) -> float:
    """Over a day that swings between night and peak."""
    mean = (1 + load.night_share) / 2
    return _messages_per_s(load, load.sessions) * mean * DAY_S


def unit_costs() -> dict[str, dict[str, Any]]:
    """Of each cost its value, the figure that it was read from, and the command that prints that."""
    return tomllib.loads(UNIT_COSTS.read_text(encoding="utf-8"))


def document(page: str) -> str:
    """The page with what the model says of the usual load, and with the values of its assumptions."""
    need = "\n".join(table(needed(Load(), Cell(), Costs.measured())))
    page = re.sub(
        r"(## What it comes to\n\n).*?(\n\n)", lambda found: found[1] + need + found[2], page, flags=re.DOTALL
    )
    for name, value in assumptions():
        page = re.sub(rf"^\| `{name}` \| [^|]+ \|", f"| `{name}` | {value:,g} |", page, flags=re.MULTILINE)
    return page


def assumptions() -> Iterator[tuple[str, float]]:
    """Everything that the model rests on, with its value."""
    for one in (Costs.measured(), Load(), Cell()):
        yield from ((field.name, getattr(one, field.name)) for field in fields(one))


if __name__ == "__main__":
    raise SystemExit(main())
