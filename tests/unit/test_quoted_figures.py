"""The README's figures: each is one that `make bench` measures and docs/benchmarks.md explains."""

import re

from tests.bench import quote
from tests.bench.processes import ROOT
from tests.bench.report import Figure, as_json


def test_every_quoted_figure_is_explained() -> None:
    """A reader who asks what a number means finds it by its name."""
    explained = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "benchmarks.md").read_text()))
    families = {name for name in quote.QUOTED if name.startswith("idle_links_10000_")}

    assert set(quote.QUOTED) - families <= explained


def test_the_table_says_what_was_measured_and_leaves_out_what_was_not() -> None:
    """A row for each figure of the report, with its floor and its aim as they stand there."""
    content = as_json({"cli_send_ms": Figure(53.46, "ms", 17.0), "durable_dm_per_s": Figure(18_027.4, "msg/s")}, {})

    rows = quote.table(content).splitlines()[2:]

    assert len(rows) == 2
    assert "| 18,027 msg/s |  |" in rows[0]
    assert "| 53.5 ms | 17 (× 3.15) | ≤ 80 and" in rows[1]


def test_the_readme_has_a_place_for_the_figures() -> None:
    """Else the command would write nothing."""
    text = quote.PAGE.read_text()

    assert text.index(quote.BEGIN) < text.index(quote.END)
