"""The figure: for each case a line with a dot for each library's fastest form, by ratio on a log axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

__all__ = ["draw", "fastest"]

# Markers differ as well as colours, so that they can be told apart in grey.
_MARKS = {
    "raw": ("s", "#555555"),
    "linen": ("^", "#35608d"),
    "nnx": ("v", "#22908b"),
    "equinox": ("D", "#7ad151"),
    "haiku": ("P", "#bb9f06"),
    "optax": ("X", "#9467bd"),
    "torch": ("o", "#d1495b"),
}
_NAMES = {"raw": "raw JAX", "linen": "Flax linen", "nnx": "Flax nnx", "equinox": "Equinox", "haiku": "Haiku"}
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def fastest(result: Mapping[str, Any]) -> dict[str, float]:
    """The ratio of each library's fastest form."""
    found: dict[str, float] = {}
    for entry in result["contestants"]:
        if "ratio" in entry:
            found[entry["library"]] = min(entry["ratio"], found.get(entry["library"], entry["ratio"]))
    return found


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the figure as SVG, the same for the same results."""
    rows = [(result["title"], fastest(result)) for result in results]
    height = 1.2 + 0.34 * len(rows)
    with matplotlib.rc_context({"svg.hashsalt": "purenets", "font.size": 10}):
        figure = Figure(figsize=(9, height), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        for line, (_, found) in enumerate(rows):
            values = found.values()
            axes.plot([min(values), max(values)], [line, line], color="0.85", lw=1, zorder=1)
        for library, (marker, colour) in _MARKS.items():
            points = [(found[library], line) for line, (_, found) in enumerate(rows) if library in found]
            if points:
                label = _NAMES.get(library, library)
                axes.scatter(
                    *zip(*points, strict=True), s=34, marker=marker, color=colour, label=label, zorder=2
                )
        mine = [(found["purenets"], line) for line, (_, found) in enumerate(rows) if "purenets" in found]
        if mine:
            shown = {"s": 120, "marker": "*", "color": "black", "label": "purenets", "zorder": 3}
            axes.scatter(*zip(*mine, strict=True), **shown)
        axes.axvline(1, color="black", lw=0.8, zorder=0)
        axes.set_yticks(range(len(rows)), [title for title, _ in rows])
        axes.invert_yaxis()
        low, high = axes.get_xlim()
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("time over that of the best JAX peer; left is faster")
        axes.grid(True, axis="x", alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(path, metadata={"Date": None})
