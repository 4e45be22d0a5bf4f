"""The compatibility matrix: which call of ours is which call of optax, of torch, and which paper.

A cell is measured, by the trajectories of :mod:`purenets.conform.trajectory`, under exact flags: the ones that
make the two equal, where there are such. What stays different is named with its reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purenets.conform.against import forget
from purenets.conform.optimizer import check_optimizer
from purenets.conform.report import Row

__all__ = ["ENTRIES", "Cell", "Entry", "matrix", "to_markdown", "write_matrix"]

OPTAX = "https://github.com/google-deepmind/optax"


class Entry(NamedTuple):
    """One comparison to make."""

    name: str
    column: str
    """``optax``, ``torch`` or ``paper``."""
    reference: str
    settings: Mapping[str, Any] = {}
    """Hyperparameters to hold on both sides, where a side takes them."""
    remark: str = ""
    """Why the two differ, where they do, or what the flags are for."""


class Cell(NamedTuple):
    """What one comparison gave."""

    entry: Entry
    status: str
    """``equal``, ``differs``, ``partly`` or ``not run``."""
    differing: tuple[str, ...] = ()
    first: str = ""


_SAME = [
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan",
    "amsgrad", "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam",
    "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop", "sgd", "sign_sgd",
    "signum", "sm3", "yogi",
]  # fmt: skip
_CONTRIB = [
    "ademamix", "adopt", "cocob", "madgrad", "momo_adam", "muon", "schedule_free_adamw",
    "schedule_free_sgd", "simplified_ademamix",
]  # fmt: skip
_PAPER = [
    "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamw", "adan", "amsgrad", "fromage",
    "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "rprop", "sgd",
    "sign_sgd", "signum", "sm3", "yogi",
]  # fmt: skip

_PAPERS: dict[str, dict[str, Any]] = {
    "adadelta": {"learning_rate": 1.0},
    "amsgrad": {"bias_correction_mu": False, "bias_correction_nu": False},
    "radam": {"threshold": 4.0},
}

_FREE = f"optax counts the steps of the average from 1 and those of the base from 0: {OPTAX}/pull/1744"
_CONTRIB_REMARKS = {
    "momo_adam": f"optax decays the parameters alone: {OPTAX}/pull/1787",
    "schedule_free_adamw": _FREE,
    "schedule_free_sgd": _FREE,
}

ENTRIES: list[Entry] = [
    *(Entry(name, "optax", f"optax:{name}") for name in _SAME),
    Entry("rprop", "optax", "optax:rprop", remark=f"optax returns the update of the step before: {OPTAX}/pull/1725"),
    *(
        Entry(name, "optax", f"optax.contrib:{name}", remark=_CONTRIB_REMARKS.get(name, ""))
        for name in _CONTRIB
    ),
    Entry(
        "acprop", "optax", "optax.contrib:acprop",
        remark=f"optax measures the surprise against the mean of the step before: {OPTAX}/pull/1716",
    ),
    Entry("momo", "optax", "optax.contrib:momo", remark=f"optax decays the parameters alone: {OPTAX}/pull/1787"),
    Entry("prodigy", "optax", "optax.contrib:prodigy", remark="optax gives NaN where the first gradients are all zero"),
    *(
        Entry(name, "paper", f"paper:{name}", _PAPERS.get(name, {}))
        for name in _PAPER
    ),
    Entry(
        "adafactor", "paper", "paper:adafactor",
        remark="the decay 1 - t^-0.8 is computed in float32, as in optax, so agreement ends near 1e-8",
    ),
    Entry("sgd", "torch", "torch:SGD"),
    Entry("adam", "torch", "torch:Adam"),
    Entry(
        "adamw", "torch", "torch:AdamW", {"weight_decay": 1e-2},
        "equal up to the rounding of the parameters, where torch leaves its update; the default decays differ",
    ),
    Entry("adamax", "torch", "torch:Adamax"),
    Entry("radam", "torch", "torch:RAdam", remark="torch adds epsilon before the bias correction"),
    Entry("adadelta", "torch", "torch:Adadelta", {"learning_rate": 1.0}),
    Entry(
        "rmsprop", "torch", "torch:RMSprop", {"decay": 0.99, "eps_in_sqrt": False},
        "torch adds epsilon outside of the root, and its default decay is 0.99",
    ),
    Entry("rprop", "torch", "torch:Rprop"),
    Entry(
        "adagrad", "torch", "torch:Adagrad", {"initial_accumulator_value": 0.0, "eps": 1e-10},
        "torch adds epsilon outside of the root",
    ),
    Entry("amsgrad", "torch", "torch:AMSGrad", remark="torch corrects the bias after the maximum"),
    Entry("nadam", "torch", "torch:NAdam", remark="torch schedules the momentum"),
]  # fmt: skip
"""Every comparison that is made."""


def _cell(entry: Entry, module: str, contrib: str) -> Cell:
    if entry.column == "torch" and importlib.util.find_spec("torch") is None:
        return Cell(entry, "not run", first="torch is not installed")
    package = contrib if entry.reference.startswith("optax.contrib") else module
    try:
        report = check_optimizer(
            f"{package}:{entry.name}", entry.reference, settings=entry.settings, levels=["L4"], raises=False
        )
    except ValueError as error:
        return Cell(entry, "not run", first=str(error))
    finally:
        forget()
    failed: tuple[Row, ...] = report.failures
    if not failed:
        return Cell(entry, "equal")
    asked = [row for row in report.rows if row.status in ("pass", "fail")]
    status = "differs" if len(failed) * 2 > len(asked) else "partly"
    return Cell(entry, status, tuple(row.check for row in failed), failed[0].detail.splitlines()[0])


def matrix(
    names: Iterable[str] | None = None,
    module: str = "purenets.optim",
    contrib: str = "purenets.optim.contrib",
    tell: Callable[[str], None] | None = None,
) -> list[Cell]:
    """Measure the matrix.

    Args:
        names: only these optimizers; all of :data:`ENTRIES` by default.
        module: where the optimizers to compare are, and ``contrib`` for those of optax's contrib.
        contrib: see ``module``.
        tell: called with a line for each comparison.
    """
    wanted = None if names is None else set(names)
    cells = []
    for entry in ENTRIES:
        if wanted is None or entry.name in wanted:
            cells.append(_cell(entry, module, contrib))
            if tell:
                tell(f"{cells[-1].status:<8} {entry.name} and {entry.reference} {cells[-1].first[:120]}")
    return cells


def _call(entry: Entry) -> str:
    flags = ", ".join(f"{name}={value}" for name, value in entry.settings.items())
    return f"`{entry.reference.split(':')[-1]}({flags or '...'})`"


def _told(cell: Cell) -> str:
    if cell.status == "equal":
        return f"= {_call(cell.entry)}"
    if cell.status == "not run":
        return "–"
    return f"≠ {_call(cell.entry)}" if cell.status == "differs" else f"≈ {_call(cell.entry)}"


def to_markdown(cells: list[Cell]) -> str:
    """The matrix as a table, and below it what differs and why."""
    table: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        table.setdefault(cell.entry.name, {})[cell.entry.column] = cell
    versions = [f"jax {jax.__version__}", f"numpy {np.__version__}", f"Python {platform.python_version()}"]
    for name in ("optax", "torch"):
        if importlib.util.find_spec(name) is not None:
            versions.insert(0, f"{name} {getattr(importlib.import_module(name), '__version__', '')}")
    lines = [
        "# Compatibility of the optimizers",
        "",
        "Measured by `python -m purenets.conform --matrix`, not written by hand: updates and state fields over",
        "160 and 2,400 steps of gradients that span twelve decades, every hyperparameter turned alone and all",
        "together, float64 to 1e-12 and float32 to 5e-5 beyond measured rounding.",
        "",
        f"With {', '.join(versions)}.",
        "",
        "`=` equal under the flags shown, `≈` equal but for what is listed below, `≠` different, `–` not run.",
        "",
        "| optimizer | optax | torch | paper |",
        "|---|---|---|---|",
    ]
    for name in sorted(table):
        row = table[name]
        shown = [_told(row[column]) if column in row else "" for column in ("optax", "torch", "paper")]
        lines.append(f"| `{name}` | " + " | ".join(shown) + " |")
    remarks = [
        c for c in cells if c.status in ("differs", "partly") or (c.entry.remark and c.status == "equal")
    ]
    if remarks:
        lines += ["", "## Remarks", ""]
    for cell in remarks:
        text = cell.entry.remark or "no reason is known"
        lines.append(f"- `{cell.entry.name}` and {_call(cell.entry)} of {cell.entry.column}: {text}.")
        if cell.differing:
            lines.append(f"  Differs in: {', '.join(cell.differing)}. First: {cell.first}")
    return "\n".join(lines) + "\n"


def write_matrix(
    path: str | Path, names: Iterable[str] | None = None, tell: Callable[[str], None] | None = None
) -> list[Cell]:
    """Measure the matrix and write it as Markdown."""
    cells = matrix(names, tell=tell)
    Path(path).write_text(to_markdown(cells))
    return cells
