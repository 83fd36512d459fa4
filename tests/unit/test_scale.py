"""The model of a region: docs/scale.md shows what it says, and it answers as a model of queues must."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools import scale
from tools.scale import Cell, Costs, Load

DOCUMENT = Path("docs/scale.md")


COSTS = Costs.measured()


def test_the_document_shows_what_the_model_says_of_a_million_sessions() -> None:
    """Whoever changes a cost writes the page anew: `python tools/scale.py --write`."""
    shown = "\n".join(scale.table(scale.needed(Load(), Cell(), COSTS)))

    assert shown in DOCUMENT.read_text()
    assert scale.document(DOCUMENT.read_text()) == DOCUMENT.read_text()


def test_a_page_with_other_values_is_written_anew_as_it_stands() -> None:
    """Nothing but values changes, and all of them do."""
    text = DOCUMENT.read_text()
    old = re.sub(r"\| \d[^|]*\|", "| 7 |", text)

    assert old != text
    assert scale.document(old) == text


def test_the_document_names_every_assumption_with_its_value() -> None:
    """Nothing that the model rests on is hidden."""
    text = DOCUMENT.read_text()

    missing = [name for name, value in scale.assumptions() if f"| `{name}` | {value:,g} |" not in text]

    assert missing == []


@pytest.mark.parametrize(("name", "row"), scale.unit_costs().items())
def test_a_unit_cost_names_a_figure_that_its_command_prints(name: str, row: dict[str, Any]) -> None:
    """Or it is an assumption, and the document says so."""
    module = row["command"].partition("tests.bench")[2].strip(" .")
    (source,) = re.findall(rf"^\| `{name}` \| [^|]+ \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)

    if row["figure"]:
        assert f'"{row["figure"]}"' in Path("tests/bench", f"{module}.py").read_text()
        assert f"`{row['figure']}`" in source
    else:
        assert re.search("assumption|estimated|bench-long", source)


def test_a_region_grows_with_its_sessions_and_a_cell_does_not() -> None:
    """That is what cells are for: no part of one has to hold more because there are others."""
    small, large = (scale.needed(Load(sessions=count), Cell(), COSTS) for count in (1_000_000, 10_000_000))

    assert 10 * (small.cells - 1) < large.cells <= 10 * small.cells, "a part of a cell counts as one"
    assert large.sessions_per_cell <= 1_000_000 / (small.cells - 1), "one cell fewer could not hold the small region"


def test_the_first_limit_is_the_resource_that_was_made_dear() -> None:
    """A dear handshake limits by the return of a lost node, a dear database by its processors."""
    dear_hello = scale.needed(Load(), Cell(), replace(COSTS, hello_us=20_000))
    dear_database = scale.needed(Load(), Cell(), replace(COSTS, message_database_us=5_000))

    assert dear_hello.first_limit == "node CPU, while the links of a lost node come back"
    assert dear_database.first_limit == "database CPU"


def test_a_cell_that_is_too_full_is_shown_to_be_late_after_a_loss() -> None:
    """Without headroom the links of a lost node push the others over, and messages wait."""
    fitting = scale.needed(Load(), Cell(), COSTS)
    stuffed = scale.needed(Load(), replace(Cell(), filled_to=1.6, storm_to=1.6), COSTS)

    assert fitting.late_after_loss_s < 1
    assert stuffed.late_after_loss_s > 2
