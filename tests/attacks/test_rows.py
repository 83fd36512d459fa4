"""Every row of the attack table has a test that bears its id, and README.md tells the truth about it."""

from tests.attacks import rows


def test_every_row_is_tested_or_named_as_coming_later() -> None:
    """Nothing of A01–A48 and N01–N12 is forgotten, and nothing is in two lists."""
    every = {f"A{number:02}" for number in range(1, 49)} | {f"N{number:02}" for number in range(1, 13)}

    assert sorted((*rows.DIRECT_MESSAGES, *rows.CHANNELS, *rows.LATER)) == sorted(every)
    assert {*rows.DIRECT_MESSAGES, *rows.CHANNELS} <= set(rows.tested())


def test_every_attack_test_says_in_its_docstring_which_row_it_is() -> None:
    """The id in the name is not the only trace of the row."""
    silent = [name for name, text in rows.docstrings().items() if any(row not in text for row in rows.rows_of(name))]

    assert silent == []


def test_the_readme_names_every_test_of_every_row() -> None:
    """No test is missing from the table and none in it is gone: `python -m tests.attacks.rows` brings it up to date."""
    assert rows.documented() == rows.tested()
    assert "| ? |" not in rows.README.read_text(encoding="utf-8")
