"""docs/spec/broker.md names every metric, log event and option."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from claudemesh.broker.metrics import Metrics
from claudemesh.broker.tracing.spans import SPANS
from claudemesh.cli.broker import broker
from tests.reference import help_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "spec" / "broker.md").read_text(encoding="utf-8")
COUNTERS = [field.name for field in fields(Metrics) if field.name not in ("refused", "unaudited")]


@pytest.mark.parametrize("name", [*(f"{counter}_total" for counter in COUNTERS), "refused_total{code}"])
def test_every_counter_is_documented(name: str) -> None:
    assert f"`claudemesh_{name}`" in PAGE


def test_every_log_event_is_documented() -> None:
    """An event that no page names says nothing to an operator."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/claudemesh/broker").rglob("*.py"))

    events = set(re.findall(r'log\.(?:debug|info|warning|error|failure)\(\s*"(\w+)"', source))

    assert events
    assert {event for event in events if f"| `{event}` |" not in PAGE} == set()


def test_the_page_lists_the_spans_and_exactly_their_attributes() -> None:
    """What may leave for a collector is a closed list, and this page is where an operator reads it."""
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE.partition("## 8. Traces")[2], re.MULTILINE)

    values = {"member", "claimant", "founder"}
    listed = {span: set(re.findall(r"`(\w+)`", text)) - values for span, text in rows if span in SPANS}
    assert listed == {span: set(attributes) for span, attributes in SPANS.items()}


def test_help_shows_every_option_and_an_example() -> None:
    text = help_text("claudemesh broker", broker)

    assert all(option.opts[0] in text for option in broker.params)
    assert "claudemesh broker --listen" in text
