"""What a row is: cases, and for each library the contestants that do a case's work.

A row is a package in ``benchmarks/rows`` with ``TITLE``, a docstring that says what is measured, and
``cases(scale)``. Beside it stands one module for each library that takes part, named as in :data:`LIBRARIES`, with
``contestants(case)``: for each form a function without arguments that does the work once and goes on from there.
What it returns is waited for, and its numbers are compared with those of the other contestants.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

__all__ = [
    "EXTRA",
    "LIBRARIES",
    "ROWS",
    "SCALES",
    "Call",
    "Case",
    "Scale",
    "absent",
    "cases_of",
    "contestants",
    "row",
]

Scale = Literal["tiny", "small", "full"]
"""Sizes: for tests, for a few processor cores, for an accelerator."""
SCALES: tuple[Scale, ...] = ("tiny", "small", "full")
Call = Callable[[], Any]

LIBRARIES: dict[str, tuple[str, str]] = {
    "purenets": ("purenets", "purenets"),
    "raw": ("jax", "jax"),
    "linen": ("flax", "flax"),
    "nnx": ("flax", "flax"),
    "equinox": ("equinox", "equinox"),
    "haiku": ("haiku", "dm-haiku"),
    "optax": ("optax", "optax"),
    "torch": ("torch", "torch"),
}
"""Each library's module to import, and its package."""

ROWS = (
    "mlp",
    "lenet",
    "resnet",
    "lstm",
    "transformer",
    "compile",
    "optimizer",
    "sweep",
    "dispatch",
)
EXTRA = ("resnet110", "generation")
"""Rows that run only where they are named."""


@dataclass(frozen=True, eq=False)
class Case:
    """One line of the table: what every contestant is given, and how it is timed."""

    name: str
    title: str
    given: Mapping[str, Any]
    """Sizes, weights and data."""
    rounds: int = 20
    calls: int = 1
    """Calls in a row for each time taken."""
    seconds: float = 40.0
    """When to stop before all rounds are taken, though not before the fifth."""
    checked: int = 3
    """How many calls' numbers are compared."""
    tolerance: float = 1e-4
    compared: Case | None = None
    """The same work on data on which all ought to agree, where on the case's own they need not."""
    fresh: bool = False
    """Forget what was compiled before each call."""


def row(name: str) -> ModuleType:
    """The package of a row.

    Raises:
        ValueError: there is no such row.
    """
    if name not in ROWS + EXTRA:
        raise ValueError(f"there is no row {name!r}; there are {', '.join(ROWS + EXTRA)}")
    return importlib.import_module(f"benchmarks.rows.{name}")


def cases_of(name: str, scale: Scale) -> Iterator[Case]:
    """The cases of a row, each made when it is asked for."""
    yield from row(name).cases(scale)


def absent() -> list[str]:
    """Libraries that are not installed."""
    return [name for name, (module, _) in LIBRARIES.items() if importlib.util.find_spec(module) is None]


def contestants(name: str, case: Case, libraries: Iterable[str] = LIBRARIES) -> dict[tuple[str, str], Call]:
    """The contestants of a case by library and form, of those libraries that are installed and take part."""
    found: dict[tuple[str, str], Call] = {}
    missing = absent()
    for library in libraries:
        place = f"benchmarks.rows.{name}.{library}"
        if library not in missing and importlib.util.find_spec(place) is not None:
            made = importlib.import_module(place).contestants(case)
            found |= {(library, form): call for form, call in made.items()}
    return found
