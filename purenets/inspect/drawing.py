"""Figures of matplotlib in one style, made without pyplot: no global state is touched, and nothing has to be closed.

A figure is saved by ``figure.savefig("name.svg")``; in a notebook it shows itself.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

__all__ = ["axes", "figure_of", "legend", "matplotlib"]

# Lines differ in dash as well as in colour, so that they can be told apart in grey.
_DASHES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))]
# Neighbours far apart.
_SHADES = [0.0, 0.6, 0.3, 0.8, 0.15, 0.7, 0.45, 0.9]


def matplotlib() -> Any:
    """The library.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install matplotlib, or the extra, pip install 'purenets[experiments]'"
        ) from error
    return matplotlib


@cache
def _figure_class() -> Any:
    class Figure(matplotlib().figure.Figure):  # type: ignore[misc]
        """A figure that a notebook shows, whether pyplot was imported or not."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=110)
            return file.getvalue()

    return Figure


def figure_of(width: float, height: float) -> Any:
    """An empty figure of this size in inches."""
    return _figure_class()(figsize=(width, height), layout="constrained")


def axes(figure: Any, rows: int = 1, columns: int = 1) -> list[Any]:
    """Its panels, row by row."""
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    colours = matplotlib().colormaps["viridis"](_SHADES)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
        panel.set_prop_cycle(color=colours, linestyle=_DASHES)
    return panels


def legend(panel: Any) -> None:
    """A legend where there is more than one thing to tell apart."""
    if len(panel.get_legend_handles_labels()[1]) > 1:
        panel.legend(frameon=False, fontsize=8)
