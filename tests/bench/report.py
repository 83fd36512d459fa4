"""The figures, their targets, the table and build/bench.json."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

COMMAND = "make bench"


@dataclass(slots=True)
class Figure:
    """One measured value, and the floor that was measured beside it."""

    value: float
    unit: str
    floor: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return round(self.value / self.floor, 3) if self.floor else None


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to reach."""

    text: str
    is_met: Callable[[Figure], bool]


def at_most(limit: float) -> Target:
    return Target(f"≤ {limit:,g}", lambda figure: figure.value <= limit)


def at_least(limit: float) -> Target:
    return Target(f"≥ {limit:,g}", lambda figure: figure.value >= limit)


def _of_floor(limit: float, share: float) -> Target:
    return Target(
        f"≥ {limit:,g} and ≥ {share:.0%} of floor",
        lambda figure: figure.value >= limit and (figure.ratio or 0) >= share,
    )


def _above_floor(limit: float, factor: float, more: float = 0) -> Target:
    text = f"≤ {limit:,g} and ≤ {factor:g} × floor" + (f" + {more:g}" if more else "")
    return Target(text, lambda figure: figure.value <= limit and figure.value <= factor * (figure.floor or 0) + more)


FLAT: Final = 1.5
"""How much more an entry may cost in a log of 10,000 than in one of 10, for the cost to be called flat."""


def _flat() -> Target:
    return Target(f"≤ {FLAT:g} × floor", lambda figure: (figure.ratio or 0) <= FLAT)


TARGETS: Mapping[str, Target] = {
    "durable_dm_per_s": _of_floor(15_000, 0.18),
    "durable_dm_per_s_pg": at_least(10_000),
    "dm_p50_ms_at_2000": at_most(5),
    "dm_p99_ms_at_2000": at_most(20),
    "e2e_100x1000_s": at_most(60),
    "e2e_delivered": at_least(100_000),
    "rss_per_idle_link_kb": at_most(30),
    "broker_start_ms": at_most(700),
    "broker_rss_mb": at_most(70),
    "cli_send_ms": _above_floor(80, 3, 40),
    "daemon_rss_mb": at_most(60),
    "daemon_idle_cpu_percent": at_most(0.2),
    "hook_ms": at_most(60),
    "mcp_shim_start_ms": at_most(100),
    "mcp_shim_rss_mb": at_most(15),
    "tool_tokens": at_most(1_000),
    "restart_recover_ms": at_most(2_000),
    "channel_post_us": at_most(80),
    "channel_open_us": at_most(250),
    "rotate_1000_ms": at_most(60),
    "rotate_1000_kb": at_most(80),
    "join_1000_ms": at_most(400),
    "roster_verify_us": _flat(),
    "roster_append_us": _flat(),
    "roster_sync_us": _flat(),
    "roster_restore_us": _flat(),
    "roster_follow_us": _flat(),
    "idle_links_10000_rss_mb": at_most(350),
    "idle_links_10000_cpu_percent": at_most(5),
    "idle_links_10000_dropped": at_most(0),
    "long_rss_growth_mb": at_most(10),
    "overload_p99_ms": at_most(250),
    "overload_rss_growth_mb": at_most(20),
    "cluster_cpu_us": Target("≤ 1.6 × floor", lambda figure: (figure.ratio or 9) <= 1.6),
    "failover_s": at_most(5),
    "fanout_1000_ms": _above_floor(250, 3),
}


def figures_of(measured: Mapping[str, Any]) -> dict[str, Figure]:
    """Read what a module's `measure()` returned: figures, plain numbers, or mappings with `value`."""
    return {name: _figure(found) for name, found in measured.items()}


def as_json(figures: Mapping[str, Figure], commands: Mapping[str, str]) -> dict[str, Any]:
    """The content of build/bench.json: name → value, unit, floor, ratio, target, met, command."""
    return {name: _row(name, figure, commands.get(name, COMMAND)) for name, figure in figures.items()}


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def table(content: Mapping[str, Any]) -> str:
    """The figures as a table for a terminal, which Markdown reads too."""
    head = ("figure", "value", "unit", "floor", "ratio", "target", "met")
    rows = [head, *(_cells(name, row) for name, row in content.items())]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"{name}: {row['note']}" for name, row in content.items() if row.get("note")]
    return "\n".join([*lines, "", *notes])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(name: str, figure: Figure, command: str) -> dict[str, Any]:
    target = TARGETS.get(name)
    return {
        **asdict(figure),
        "ratio": figure.ratio,
        "target": target.text if target else None,
        "met": target.is_met(figure) if target else None,
        "command": command,
    }


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: "–"}[row["met"]]
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return name, _number(row["value"]), row["unit"], _number(row["floor"]), ratio, row["target"] or "–", met


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _figure(found: Any) -> Figure:
    if isinstance(found, Figure):
        return found
    if isinstance(found, int | float):
        return Figure(found, "")
    return Figure(found["value"], found.get("unit", ""), found.get("floor"), found.get("note", ""))
