"""Figures of a training and of a sweep.

======================  ==============================================================
:func:`plot_history`    curves of ``fit`` or ``train``, training and validation together
:func:`plot_sweep`      a curve over one setting, or a map over two
======================  ==============================================================

Those of layers and weights are in ``layer_plots.py``, of attention and landscapes in ``map_plots.py``. All need
matplotlib, which the extra ``experiments`` brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from purenets.errors import describe
from purenets.inspect.drawing import axes, figure_of, legend
from purenets.paths import Where, matching

if TYPE_CHECKING:
    from purenets.train.sweep import Sweep

__all__ = ["plot_history", "plot_sweep"]

_TRAINING, _VALIDATION = "training", "validation"


def plot_history(
    history: Mapping[str, Any],
    metrics: Where = "**",
    *,
    log: str = "",
    units: Mapping[str, str] | None = None,
) -> Any:
    """The curves of a training: a panel for each metric, with those of the validation data in the same.

    Args:
        history: metric name to ``[epochs]``, of :func:`purenets.fit`, or to ``[epochs, steps]``, of
            :func:`purenets.train`, which is drawn over all steps.
        metrics: patterns of the names to draw, such as ``"{,validation/}loss"`` or ``"update_ratio/**"``.
        log: any of ``"xy"``: which axes are logarithmic.
        units: metric name to its unit, ``{"loss": "nats"}``, for the axes.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a pattern matches no metric, or a metric is not ``[epochs]`` or ``[epochs, steps]``.
    """
    curves = {
        name: np.asarray(history[name], np.float64) for name in matching(metrics, history, kind="metric")
    }
    if wrong := [name for name, values in curves.items() if values.ndim not in (1, 2)]:
        shape = describe(curves[wrong[0]])
        raise ValueError(f"a history has metrics [epochs] or [epochs, steps], {wrong[0]} is {shape}")
    panels: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in curves.items():
        plain = name.removeprefix(f"{_VALIDATION}/")
        panels.setdefault(plain, []).append((_TRAINING if plain == name else _VALIDATION, values))
    if not panels:
        raise ValueError("the history is empty: there is nothing to draw")
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = figure_of(0.6 + 3.8 * columns, 0.4 + 2.8 * rows)
    drawn = axes(figure, rows, columns)
    for panel, (name, lines) in zip(drawn, panels.items(), strict=False):
        for label, values in lines:
            panel.plot(np.arange(1, values.size + 1), values.ravel(), label=label)
        panel.set_xlabel("step" if lines[0][1].ndim == 2 else "epoch")
        panel.set_ylabel(_with_unit(name, units))
        _scales(panel, log)
        legend(panel)
    for empty in drawn[len(panels) :]:
        empty.remove()
    return figure


def _with_unit(name: str, units: Mapping[str, str] | None) -> str:
    unit = (units or {}).get(name)
    return f"{name} [{unit}]" if unit else name


def _scales(panel: Any, log: str) -> None:
    for axis, scale in (("x", panel.set_xscale), ("y", panel.set_yscale)):
        if axis in log:
            scale("log")


def plot_sweep(
    sweep: Sweep, value: Callable[[Any], Any], *, label: str = "value", log: str | None = None
) -> Any:
    """What a sweep found, over the settings that differ between its members.

    Over one setting: the mean over the seeds as a curve, the range of the seeds as a band, every member as a point.
    Over two: a map of the mean. Where the settings were paired, points of that colour.

    Args:
        sweep: of :func:`purenets.sweep`.
        value: ``value(results)``, a number for each member, ``[members]``.
        label: what that is, with its unit, for the axis: ``"validation loss [nats]"``.
        log: any of ``"xy"``: which axes are logarithmic; by default those of settings that are positive and
            span a factor of more than 30.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no setting differs between members, or more than two do.
    """
    rows = sweep.rows(value)
    names = [name for name in sweep.settings if len({row[name] for row in rows}) > 1]
    if len(names) not in (1, 2):
        raise ValueError(
            f"a figure of a sweep is over one or two settings that differ, there are {len(names)}: "
            f"{', '.join(names) or 'none'}; print(sweep.table(value)) has all"
        )
    if log is None:
        log = "".join(
            axis for axis, name in zip("xy", names, strict=False) if _spans([row[name] for row in rows])
        )
    figure = figure_of(5.6, 3.8)
    (panel,) = axes(figure)
    panel.set_xlabel(names[0])
    if len(names) == 1:
        _curve(panel, sweep, np.asarray(value(sweep.results), np.float64), rows, names[0])
        panel.set_ylabel(label)
    else:
        panel.set_ylabel(names[1])
        shades = _map(panel, rows, names, log)
        figure.colorbar(shades, label=f"{label}, mean over seeds")
    _scales(panel, log)
    return figure


def _spans(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > 30


def _curve(panel: Any, sweep: Sweep, numbers: np.ndarray, rows: list[dict[str, float]], name: str) -> None:
    rows = sorted(rows, key=lambda row: row[name])
    at = [row[name] for row in rows]
    seeds = int(sweep.seed.max()) + 1
    panel.plot(at, [row["mean"] for row in rows], marker="o", markersize=4, label=f"mean of {seeds}")
    if seeds > 1:
        low, high = ([row[end] for row in rows] for end in ("min", "max"))
        panel.fill_between(at, low, high, alpha=0.2, linewidth=0, label="range of the seeds")
        panel.scatter(sweep.settings[name], numbers, s=8, color="black", alpha=0.5, zorder=3, label="one run")
        legend(panel)


def _map(panel: Any, rows: list[dict[str, float]], names: list[str], log: str) -> Any:
    xs, ys = (sorted({row[name] for row in rows}) for name in names)
    found = {(row[names[0]], row[names[1]]): row["mean"] for row in rows}
    if len(found) < len(xs) * len(ys):
        at = np.array(list(found))
        return panel.scatter(at[:, 0], at[:, 1], c=list(found.values()), cmap="viridis", edgecolors="black")
    grid = np.array([[found[x, y] for x in xs] for y in ys])
    panel.grid(False)
    edges = [_edges(values, axis in log) for values, axis in ((xs, "x"), (ys, "y"))]
    return panel.pcolormesh(*edges, grid, cmap="viridis")


def _edges(values: Sequence[float], log: bool) -> np.ndarray:
    """Borders between values, and as far beyond the first and last."""
    at = np.log(values) if log else np.asarray(values, np.float64)
    middle = (at[1:] + at[:-1]) / 2
    edges = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.exp(edges) if log else edges
