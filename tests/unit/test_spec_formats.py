"""The pages on frozen formats name every field, operation, rule and code that the code has."""

import inspect
import re
from pathlib import Path

import pytest

from claudemesh import errors
from claudemesh.crypto import envelope, identity, statements
from claudemesh.protocol import heads, limits, roster_entry, roster_rules

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / "docs" / "spec" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("statements", "roster", "envelope", "invite", "backup")
}


def _section(page: str, number: int) -> str:
    return re.split(r"^## ", PAGES[page], flags=re.MULTILINE)[number]


@pytest.mark.parametrize(
    ("page", "section", "names"),
    [
        ("statements", 2, statements.CONTEXTS),
        ("statements", 3, [*identity._ATTESTATION_FIELDS, *identity.CAPABILITIES]),
        ("statements", 4, identity._CARD_FIELDS),
        ("roster", 1, roster_entry._COMMON),
        ("roster", 2, [*roster_entry.REQUIRED_FIELDS, *roster_entry.ROLES, *roster_entry.REVOKE_REASONS]),
        ("roster", 2, [*roster_entry.CHANNEL_KINDS]),
        ("roster", 3, roster_rules._RULES),
        ("envelope", 1, [*envelope.HEADER_FIELDS, *envelope.HEADER_OPTIONAL]),
    ],
    ids=lambda value: str(next(iter(sorted(value)))) if isinstance(value, frozenset) else str(value)[:20],
)
def test_section_names_everything_that_the_code_has(page: str, section: int, names: list[str]) -> None:
    text = _section(page, section)

    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_operation_lists_its_fields() -> None:
    """One row per operation, with each of its fields, optional ones included."""
    rows = {}
    for line in _section("roster", 2).splitlines():
        cells = line.split("|")
        if len(cells) == 4:
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", cells[1]), cells[2])

    for op, required in roster_entry.REQUIRED_FIELDS.items():
        for field in [*required, *roster_entry.OPTIONAL_FIELDS.get(op, {})]:
            assert f"`{field}`" in rows[op], f"{op}.{field}"


def test_every_reason_to_deny_is_in_the_rules() -> None:
    """And the rules name no reason that the code does not give."""
    source = inspect.getsource(roster_rules)
    given = set(re.findall(r"_deny\(\"(\w+)\"\)", source)) | {"invite_revoked", "no_grant"}
    named = set(re.findall(r"\(`(\w+)`\)", _section("roster", 3)))

    assert named - {"genesis"} == given


def test_signed_head_is_written_out_with_its_fields() -> None:
    assert '{"at","head","mesh","seq","v":1}' in _section("roster", 5)
    assert sorted(heads._FIELDS) == ["at", "head", "mesh", "seq", "v"]


def test_every_verdict_that_freezes_or_drops_is_in_the_gossip_table() -> None:
    for code in (heads.Gossip.FORK, heads.Gossip.WITHHELD, heads.Gossip.UNPROVEN):
        assert f"`{code.value}`" in _section("roster", 6)


@pytest.mark.parametrize(
    ("error", "pages"),
    [
        (errors.BadSignature, ["statements", "roster"]),
        (errors.RosterRefused, ["roster"]),
        (errors.EnvelopeRefused, ["envelope"]),
        (errors.Unopenable, ["envelope", "backup"]),
        (errors.LinkRefused, ["invite"]),
    ],
    ids=str,
)
def test_every_code_of_a_class_has_its_place(error: type[errors.ClaudemeshError], pages: list[str]) -> None:
    """Codes about channels and their epochs belong to the page about channels."""
    text = "".join(PAGES[page] for page in pages)
    expected = [code for code in error.CODES if "channel" not in code and "epoch" not in code]

    assert [code for code in expected if f"`{code}`" not in text] == []


def test_every_code_that_a_page_names_exists() -> None:
    """A row of a refused-with column that no error carries would be a promise that nobody keeps."""
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if vars(one).get("CODES")]
    known = {code for one in classes for code in one.CODES}

    for name in ("envelope", "backup"):
        for line in PAGES[name].splitlines():
            cells = line.split("|")
            refused_with = cells[-2] if len(cells) > 3 else ""
            codes = {code for code in re.findall(r"`(\w+_\w+|\w+)`", refused_with) if code in known or "_" in code}
            assert codes <= known, line


@pytest.mark.parametrize(
    ("page", "text", "value"),
    [
        ("roster", "200,000 entries", limits.MAX_LOG_ENTRIES),
        ("roster", "At most 64 invites", limits.OPEN_INVITES_PER_ISSUER),
        ("roster", "fewer than 256 channels", limits.CHANNELS_PER_PEER),
        ("roster", "`uses`: 1 to 1,000", limits.INVITE_USES_MAX),
        ("roster", "with `user` at most 5", limits.DEVICE_LINK_USES_MAX),
        ("roster", "`dev`: 0 to 5", limits.DEVICE_ALLOWANCE),
        ("roster", "at most 90 days", limits.INVITE_MAX_MS // limits.DAY_MS),
        ("roster", "more than 5 min", limits.CLOCK_SKEW_MS // limits.MINUTE_MS),
        ("roster", "more than 10 min", limits.FUTURE_ENTRY_MS // limits.MINUTE_MS),
        ("roster", "retries 3 times", limits.WITHHELD_RETRIES),
        ("roster", "16,384 bytes", statements.MAX_STATEMENT_BYTES),
        ("statements", "at most 16,384 bytes", statements.MAX_STATEMENT_BYTES),
        ("statements", "at most 7 days", identity.ATTESTATION_MAX_MS // limits.DAY_MS),
        ("statements", "up to 64 sessions", identity.MAX_DEAD_SESSIONS),
        ("envelope", "at most 4,096 bytes", envelope.MAX_HEADER_BYTES),
        ("envelope", "at least 1,280 bytes", envelope.PADDING_FLOOR_BYTES),
        ("envelope", "1,024 bits", limits.REPLAY_WINDOW),
        ("envelope", "now − 14 days", limits.QUEUE_LIFETIME_MS // limits.DAY_MS),
    ],
)
def test_number_in_a_page_is_the_number_in_the_code(page: str, text: str, value: int) -> None:
    joined = " ".join(PAGES[page].split())

    assert text in joined
    assert value in [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]
