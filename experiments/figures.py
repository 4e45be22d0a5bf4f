"""Figures in one style: readable in grey, fixed sizes, the same file for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
import numpy as np
from matplotlib.figure import Figure

__all__ = ["axes", "boundary", "confusion", "curves", "pictures"]

# Lines differ in dash as well as in colour, so that they can be told apart in grey.
_DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))]
matplotlib.rcParams.update(
    {
        "svg.hashsalt": "purenets",
        "savefig.dpi": 150,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "image.cmap": "viridis",
        "axes.prop_cycle": matplotlib.cycler(color=matplotlib.colormaps["viridis"](np.linspace(0, 0.85, 8)))
        + matplotlib.cycler(linestyle=_DASHES),
    }
)


def axes(
    x: str, y: str, *, columns: int = 1, rows: int = 1, width: float = 6.4, height: float = 3.8
) -> tuple[Figure, Any]:
    """A figure and its axes, labelled; with several panels an array of axes ``[rows, columns]``."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for panel in grid.flat:
        panel.set_xlabel(x)
        panel.set_ylabel(y)
    return figure, grid[0, 0] if rows == columns == 1 else grid


def curves(
    lines: Mapping[str, Sequence[float] | np.ndarray], *, x: str, y: str, at: Any = None, log: str = ""
) -> Figure:
    """Named curves over a common abscissa, from 1 on unless ``at`` is given; ``log`` is any of ``"xy"``."""
    figure, panel = axes(x, y)
    for name, values in lines.items():
        panel.plot(np.arange(1, len(values) + 1) if at is None else at, values, label=name)
    if "x" in log:
        panel.set_xscale("log")
    if "y" in log:
        panel.set_yscale("log")
    panel.legend(frameon=False)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[Any]) -> Figure:
    """A confusion matrix: rows are what is true, columns what was predicted."""
    figure, panel = axes("predicted", "true", width=5.2, height=4.8)
    panel.imshow(np.sqrt(matrix), cmap="Greys")
    panel.grid(False)
    panel.set_xticks(range(len(classes)), classes)
    panel.set_yticks(range(len(classes)), classes)
    largest = matrix.max()
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if count > largest / 4 else "black"
            panel.text(column, row, int(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def pictures(images: np.ndarray, titles: Sequence[str], *, columns: int = 8) -> Figure:
    """Small grey pictures ``[count, height, width]`` in a grid, a title over each."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 1.1, rows * 1.35), layout="constrained")
    for index, panel in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        panel.axis("off")
        if index < len(images):
            panel.imshow(images[index], cmap="Greys")
            panel.set_title(titles[index], fontsize=8)
    return figure


def boundary(
    panel: Any, predict: Any, points: np.ndarray, labels: np.ndarray, *, reach: float = 0.5, title: str = ""
) -> None:
    """Draw where ``predict([n, 2]) -> [n]`` in [0, 1] crosses one half, with the labelled points on top."""
    low, high = points.min(0) - reach, points.max(0) + reach
    xs, ys = np.meshgrid(np.linspace(low[0], high[0], 160), np.linspace(low[1], high[1], 160))
    values = np.asarray(predict(np.stack([xs.ravel(), ys.ravel()], -1).astype(np.float32))).reshape(xs.shape)
    shades = panel.contourf(
        xs, ys, values, levels=np.linspace(0, 1, 11), cmap="RdBu_r", alpha=0.6, vmin=0, vmax=1
    )
    shades.set_rasterized(True)  # as outlines they would be most of the file
    if values.min() < 0.5 < values.max():
        panel.contour(xs, ys, values, levels=[0.5], colors="black", linewidths=1.2)
    for label, marker in ((0, "o"), (1, "s")):
        chosen = points[labels == label]
        panel.scatter(*chosen.T, marker=marker, c="white", edgecolors="black", s=45, label=f"class {label}")
    panel.set_title(title, fontsize=10)
