"""The model of a region: docs/scale.md shows what it says, and it answers as a model of queues must."""

from dataclasses import replace
from pathlib import Path

from tools import scale
from tools.scale import Cell, Costs, Load

DOCUMENT = Path("docs/scale.md")


def test_the_document_shows_what_the_model_says_of_a_million_sessions() -> None:
    """Whoever changes a cost writes the table anew."""
    shown = "\n".join(scale.table(scale.needed(Load(), Cell(), Costs())))

    assert shown in DOCUMENT.read_text()


def test_the_document_names_every_assumption_with_its_value() -> None:
    """Nothing that the model rests on is hidden."""
    text = DOCUMENT.read_text()

    missing = [name for _, name, value in scale.describe() if f"| `{name}` | {value:,g} |" not in text]

    assert missing == []


def test_a_region_grows_with_its_sessions_and_a_cell_does_not() -> None:
    """That is what cells are for: no part of one has to hold more because there are others."""
    small, large = (scale.needed(Load(sessions=count), Cell(), Costs()) for count in (1_000_000, 10_000_000))

    assert 9 <= large.cells / small.cells <= 11
    assert large.sessions_per_cell <= 1.1 * small.sessions_per_cell


def test_the_first_limit_is_the_resource_that_was_made_dear() -> None:
    """A dear handshake limits by the return of a lost node, a dear database by its processors."""
    dear_hello = scale.needed(Load(), Cell(), replace(Costs(), hello_us=20_000))
    dear_database = scale.needed(Load(), Cell(), replace(Costs(), message_database_us=5_000))

    assert dear_hello.first_limit == "node CPU, while the links of a lost node come back"
    assert dear_database.first_limit == "database CPU"


def test_a_cell_that_is_too_full_is_shown_to_be_late_after_a_loss() -> None:
    """Without headroom the links of a lost node push the others over, and messages wait."""
    fitting = scale.needed(Load(), Cell(), Costs())
    stuffed = scale.needed(Load(), replace(Cell(), filled_to=1.6, storm_to=1.6), Costs())

    assert fitting.late_after_loss_s < 1
    assert stuffed.late_after_loss_s > 2
