"""Which rows of the course's catalogue are established, by which tests and experiments: read from their sources.

A test says so by ``@pytest.mark.covers("O14")``, an experiment by naming the row in its docstring. Sections of the
catalogue: M neurons and models, A activations, L losses, I initialisers, O optimizers, S schedules, G gradients, N
normalisation, T training, W worked examples, X claims, D views of data.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["OPTIONAL", "SECTIONS", "Row", "cited", "rows"]

SECTIONS = {
    "M": ("neurons and models", 73),
    "A": ("activations", 14),
    "L": ("losses and regularisers", 16),
    "I": ("initialisers", 21),
    "O": ("optimizers", 39),
    "S": ("schedules", 8),
    "G": ("gradients", 24),
    "N": ("normalisation, residuals, dropout", 14),
    "T": ("training", 22),
    "W": ("worked examples", 32),
    "X": ("claims", 69),
    "D": ("views of data", 12),
}
"""Letter of a section: what it is about, and how many rows it has."""

OPTIONAL = frozenset(["M43", "M45", "M52", "M71", "M72", "N12", "T21", "W30", "X62", "X64", "D06", "D12"])
_ROOT = Path(__file__).parent.parent
_ID = re.compile(r"\b([A-Z])(\d\d)\b")
_RANGE = re.compile(r"\b([A-Z])(\d\d) to ([A-Z])(\d\d)\b")


@dataclass
class Row:
    """One row: its tests as (module, sentence), its experiments by name."""

    id: str
    tests: list[tuple[str, str]] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)

    @property
    def optional(self) -> bool:
        """Whether the catalogue leaves it to the reader."""
        return self.id in OPTIONAL

    @property
    def covered(self) -> bool:
        """Whether anything establishes it."""
        return bool(self.tests or self.experiments)


def cited(text: str) -> list[str]:
    """The rows that a docstring names, ranges included, in order.

    >>> cited("Claims X02 and X44 to X46, in float32.")
    ['X02', 'X44', 'X45', 'X46']
    """
    found = {f"{a}{b}" for a, b in _ID.findall(text)}
    for letter, first, other, last in _RANGE.findall(text):
        if letter == other:
            found |= {f"{letter}{n:02d}" for n in range(int(first), int(last) + 1)}
    return sorted(name for name in found if name[0] in SECTIONS and 0 < int(name[1:]) <= SECTIONS[name[0]][1])


def rows() -> list[Row]:
    """All rows in order, with what establishes each."""
    every = {f"{letter}{n:02d}" for letter, (_, count) in SECTIONS.items() for n in range(1, count + 1)}
    table = {name: Row(name) for letter in SECTIONS for name in sorted(every) if name[0] == letter}
    for path in sorted((_ROOT / "tests").rglob("test_*.py")):
        for test, names in _marked(path):
            for name in names:
                if name in table:
                    table[name].tests.append((_module(path), test.removeprefix("test_").replace("_", " ")))
    for path in sorted((_ROOT / "experiments").glob("*.py")):
        if path.name not in ("rows.py", "__main__.py"):
            for name in cited(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""):
                table[name].experiments.append(path.stem)
    return list(table.values())


def _marked(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The tests of a file that are marked, with their rows."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.covers":
                    yield node.name, [ast.literal_eval(argument) for argument in mark.args]


def _module(path: Path) -> str:
    """The module that a file of tests mirrors, or the package it is nearest to."""
    parts = [*path.relative_to(_ROOT / "tests").parts[:-1], path.stem.removeprefix("test_")]
    if parts[0] == "experiments":
        return "experiments"
    while parts and not (
        (here := _ROOT.joinpath("purenets", *parts)).with_suffix(".py").exists() or here.is_dir()
    ):
        parts.pop()
    return ".".join(["purenets", *parts])
