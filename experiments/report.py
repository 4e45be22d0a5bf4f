"""What an experiment returns, and the folder of results it becomes.

A :class:`Report` holds measured numbers, a verdict computed from them, figures and tables. :func:`save`
writes ``config.json``, ``environment.json``, ``metrics.jsonl``, ``report.json``, one SVG a figure, a small picture of
the first and one self-contained ``index.html``, which needs no network and no script.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

__all__ = ["Report", "Table", "Verdict", "open_folder", "render", "rows_of", "save", "verdict", "write"]

Verdict = Literal["holds", "fails", "inconclusive"]


@dataclass
class Table:
    """Rows under a header, for the page."""

    header: list[str]
    rows: list[list[Any]]


@dataclass
class Report:
    """The outcome of an experiment."""

    numbers: dict[str, Any]
    """What was measured, by name; scalars or short lists."""
    verdict: Verdict
    because: str
    """One sentence with the numbers that decided."""
    figures: dict[str, Figure] = field(default_factory=dict)
    """File name without suffix, to figure; its caption is the name in words."""
    tables: dict[str, Table] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """One dict a line of ``metrics.jsonl``."""


def verdict(holds: bool, *, enough: bool = True) -> Verdict:
    """``holds`` or ``fails`` by the numbers; ``inconclusive`` where they are not enough to tell."""
    if not enough:
        return "inconclusive"
    return "holds" if holds else "fails"


def rows_of(history: dict[str, np.ndarray], **labels: Any) -> list[dict[str, Any]]:
    """A history as one dict an epoch, for ``Report.metrics``."""
    count = len(next(iter(history.values())))
    return [
        {**labels, "epoch": i + 1, **{name: float(values[i]) for name, values in history.items()}}
        for i in range(count)
    ]


def open_folder(folder: Path) -> Path:
    """Make the folder and see that it can be written, before anything is computed.

    Raises:
        OSError: it cannot be made or written; the message names it and says how to choose another.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"results cannot be written to {folder} ({error.strerror}): choose another folder with --results"
        ) from error
    return folder


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they can change a result."""
    names = ("purenets", "jax", "jaxlib", "numpy", "optax")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cores": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def save(
    report: Report, folder: Path, *, name: str, claim: str, config: Any, seconds: float, source: str = ""
) -> Path:
    """Write the report into the folder and return the path of its page.

    ``source`` is what the program was that made it, so that a later change can be told.
    """
    settings = dataclasses.asdict(config)
    surroundings = environment()
    write(folder / "config.json", json.dumps(settings, indent=2, default=str))
    write(folder / "environment.json", json.dumps(surroundings, indent=2))
    write(folder / "metrics.jsonl", "".join(json.dumps(row, default=_plain) + "\n" for row in report.metrics))
    summary = {
        "verdict": report.verdict,
        "because": report.because,
        "numbers": report.numbers,
        "seconds": seconds,
        "source": source,
        "default": config == type(config)(),
    }
    write(folder / "report.json", json.dumps(summary, indent=2, default=_plain))
    (folder / "thumbnail.png").unlink(missing_ok=True)
    for figure in list(report.figures.values())[:1]:
        figure.savefig(folder / "thumbnail.png", format="png", dpi=60)
    drawings = {}
    for figure_name, figure in report.figures.items():
        svg = _svg(figure)
        write(folder / f"{figure_name}.svg", svg)
        drawings[figure_name.replace("_", " ")] = svg[svg.index("<svg") :]
    page = render(
        "page.html",
        name=name,
        claim=claim,
        report=report,
        figures=drawings,
        settings=settings,
        environment=surroundings,
        seconds=seconds,
    )
    write(folder / "index.html", page)
    return folder / "index.html"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def write(path: Path, text: str) -> None:
    """Replace the file as a whole, so that an interrupted run leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def render(template: str, **values: Any) -> str:
    """A page from one of the templates."""
    loader = PackageLoader("experiments", "templates")
    environment = Environment(
        loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment.get_template(template).render(**values)


def _number(value: Any) -> str:
    if isinstance(value, (bool, str)) or value is None:
        return str(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(_number(item) for item in value)
    return f"{value:,}" if isinstance(value, (int, np.integer)) else f"{float(value):.5g}"
