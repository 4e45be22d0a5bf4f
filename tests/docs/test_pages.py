"""What the pages of the documentation print runs, and what they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def is_notebook(page):
    return page.read_text().startswith("---\nfile_format: mystnb\n")


def blocks(page, language):
    """The fenced blocks of a language on a page, or code cells."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def code_of(cell):
    """The lines of a cell that are neither options nor empty."""
    return [line for line in cell.splitlines() if line.strip() and not line.startswith(":")]


# Those of docs/coming_from run in their own test, those of notebooks when the site is built.
PLAIN = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if not is_notebook(page) and page.parent.name != "coming_from" and blocks(page, "python")
]


@pytest.mark.parametrize("page", PLAIN, ids=[str(page.relative_to(DOCS)) for page in PLAIN])
def test_the_code_of_a_plain_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {"__name__": page.stem})


def test_a_page_with_cells_is_a_notebook():
    pages = [page for page in DOCS.rglob("*.md") if "{code-cell}" in page.read_text()]
    assert len(pages) >= 4
    assert [page for page in pages if not is_notebook(page)] == []


def test_the_quickstart_has_as_few_lines_as_it_and_the_first_page_say():
    lines = [line for cell in blocks(DOCS / "quickstart.md", "{code-cell}") for line in code_of(cell)]
    assert len(lines) <= 25
    for page in ("quickstart.md", "index.md"):
        assert re.findall(r"(\d+) lines", (DOCS / page).read_text()) == [str(len(lines))]


def test_the_tests_that_the_design_names_are_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (DOCS / "design.md").read_text()))
    assert len(named) >= 15
    assert [path for path in named if not (ROOT / path).is_file()] == []
