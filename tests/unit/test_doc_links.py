"""What the pages point at is there: other pages and their sections, the tests that they name, a page for each host."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from claudemesh.hosts.base import NAMES, host_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "tests").rglob("*.md"),
    *ROOT.glob("plugin/**/*.md"),
]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *PAGES]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
NAMED_SECTION = re.compile(r"\b(docs/[\w/-]+\.md)(?: §(\d+))?")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one).lower() for one in headings)
    return frozenset(re.sub(r"[^\w\- ]", "", one).strip().replace(" ", "-") for one in plain)


@cache
def functions(module: Path) -> frozenset[str]:
    """The functions of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(one.name for one in ast.walk(ast.parse(module.read_text())) if isinstance(one, kinds))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_relative_link_resolves(page: Path) -> None:
    """To a file or directory of the repository, and to a heading in it where one is named."""
    found = LINK.findall(FENCE.sub("", page.read_text()))

    broken = []
    for path, anchor in found:
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    """A claim without its test would be worth nothing."""
    named = NAMED_TEST.findall(page.read_text())

    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and name not in functions(ROOT / path))
    ]

    assert missing == []


def test_every_section_that_is_named_exists() -> None:
    """In pages and in code: a page of docs/, with or without `§N`, which is a heading `N. …`."""
    missing = []
    for source in SOURCES:
        for path, number in NAMED_SECTION.findall(source.read_text()):
            page = ROOT / path
            if not page.exists() or (number and not re.search(rf"^##+ {number}\b", page.read_text(), re.MULTILINE)):
                missing.append(f"{source.relative_to(ROOT)}: {path} §{number}")

    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_every_host_has_its_page(name: str) -> None:
    """Linked from the entry page; or a section there, as long as that is all there is to say."""
    entry = (ROOT / "docs" / "hosts.md").read_text()
    title = re.escape(host_of(name).title)
    page = ROOT / "docs" / "hosts" / f"{name}.md"

    if page.exists():
        assert f"](hosts/{name}.md)" in entry
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert {"Install", "What works", "Verify", "Remove", "Limits", "When it does not work"} <= set(headings)
    else:
        assert re.search(rf"^## \d+\. {title}\n\n\* \*\*", entry, re.MULTILINE)
