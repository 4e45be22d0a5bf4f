"""The committed matrix has a row for everything that is compared, and a remark for all that differs."""

import re
from pathlib import Path

from purenets.conform.matrix import ENTRIES

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()


def test_every_comparison_has_its_cell():
    rows = {row.split("`")[1]: row for row in PAGE.splitlines() if row.startswith("| `")}
    assert set(rows) == {entry.name for entry in ENTRIES}
    for entry in ENTRIES:
        cells = dict(zip(("optax", "torch", "paper"), rows[entry.name].split("|")[2:5], strict=True))
        assert cells[entry.column].strip()[0] in "=≈≠", entry.name


def test_what_differs_is_named_with_what_differs():
    differing = len(re.findall(r"[≈≠] `", PAGE.split("## Remarks")[0].split("| optimizer")[1]))
    assert PAGE.split("## Remarks")[1].count("  Differs in: ") == differing
