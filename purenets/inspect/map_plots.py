"""Figures of what is a map already: attention weights and the loss around a point.

========================  ============================================================
:func:`plot_attention`    where the queries of one example look, by layer and head
:func:`plot_landscape`    the loss along a line, or over a plane
========================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from purenets.errors import describe
from purenets.inspect.drawing import axes, figure_of

__all__ = ["plot_attention", "plot_landscape"]

_MOST = 200
"""Panels in one figure."""


def plot_attention(
    maps: Mapping[str, ArrayLike],
    *,
    example: int = 0,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
) -> Any:
    """Where each query looks, a row of panels for each layer and a panel for each head; dark is much.

    Args:
        maps: of :func:`purenets.inspect.attention_maps`: path to ``[batch, heads, time, source]``, with members in
            front where layers are stacked, each of which gets a row of its own.
        example: which one of the batch.
        queries: what stands at each time, such as the tokens, for the axis; as many as ``time``.
        keys: likewise of the source; those of the queries by default, where there are as many.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError: there is no such example.
        ValueError: there are no maps, one has no four axes, more panels than one figure can hold, or names that are
            not as many as queries or keys.
    """
    rows = _by_member(maps, example)
    columns = max(len(heads) for heads in rows.values())
    if len(rows) * columns > _MOST:
        raise ValueError(
            f"{len(rows)} layers of {columns} heads are more than one figure holds; give some of the maps, such as "
            f"{{path: maps[path] for path in {list(maps)[:2]}}}"
        )
    figure = figure_of(0.8 + 1.9 * columns, 0.6 + 1.9 * len(rows))
    panels = np.array(axes(figure, len(rows), columns), object).reshape(len(rows), columns)
    shown = None
    for line, (path, heads) in zip(panels, rows.items(), strict=True):
        for number, panel in enumerate(line):
            if number >= len(heads):
                panel.remove()
                continue
            weights = heads[number]
            panel.grid(False)
            shown = panel.imshow(
                weights, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            panel.set_title(f"head {number}", fontsize=8)
            _named(panel, "y", "query", queries, len(weights))
            same = queries if weights.shape[0] == weights.shape[1] else None
            _named(panel, "x", "key", keys if keys is not None else same, weights.shape[1])
        line[0].set_ylabel(f"{path or '(the model)'}\nquery", fontsize=8)
    figure.colorbar(shown, ax=list(figure.axes), label="weight", shrink=0.6)
    return figure


def _by_member(maps: Mapping[str, ArrayLike], example: int) -> dict[str, np.ndarray]:
    """``[heads, time, source]`` of one example by path, the members of a stack one after another."""
    if not maps:
        raise ValueError("there are no attention maps to draw")
    rows: dict[str, np.ndarray] = {}
    for path, given in maps.items():
        found = np.asarray(given, np.float64)
        if found.ndim < 4:
            raise ValueError(
                f"attention maps are [batch, heads, time, source], {path or '(the model)'} is {describe(given)}"
            )
        for member in np.ndindex(found.shape[:-4]):
            batch = found[member]
            if not -len(batch) <= example < len(batch):
                raise IndexError(f"{path or '(the model)'} has {len(batch)} examples, there is no {example}")
            rows["".join([path, *(f"[{i}]" for i in member)])] = batch[example]
    return rows


def _named(panel: Any, axis: str, kind: str, names: Sequence[str] | None, count: int) -> None:
    label, ticks = (
        (panel.set_xlabel, panel.set_xticks) if axis == "x" else (panel.set_ylabel, panel.set_yticks)
    )
    label(kind, fontsize=8)
    panel.tick_params(axis=axis, labelsize=7)
    if names is None:
        return
    if len(names) != count:
        raise ValueError(
            f"there are {count} {kind} positions and {len(names)} names for them: {list(names)[:6]}"
        )
    ticks(range(count), list(names), rotation=90 if axis == "x" else 0)


def plot_landscape(
    losses: ArrayLike, at: Sequence[float] | ArrayLike, *, log: bool = False, label: str = "loss"
) -> Any:
    """The loss along a direction as a curve, or over two as a surface of lines of equal loss; a cross in the middle.

    Args:
        losses: of :func:`purenets.inspect.landscape`: ``[points]``, or ``[points, points]`` with the first direction
            first.
        at: the steps along each direction, ``[points]``, as given to ``landscape``.
        log: whether the loss is on a logarithmic scale, for which all of it has to be positive.
        label: what the loss is, with its unit: ``"cross-entropy [nats]"``.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the shapes do not agree, or ``log`` with a loss that is not positive.
    """
    values, steps = np.asarray(losses, np.float64), np.asarray(at, np.float64)
    if steps.ndim != 1 or values.shape not in (steps.shape, 2 * steps.shape):
        raise ValueError(
            f"a landscape over steps [points] is [points] or [points, points], got {describe(losses)} over "
            f"{describe(at)}"
        )
    if log and not (values[np.isfinite(values)] > 0).all():
        raise ValueError(f"a logarithmic scale needs losses above zero, the least is {np.nanmin(values)}")
    figure = figure_of(5.6, 3.8 if values.ndim == 1 else 4.6)
    (panel,) = axes(figure)
    panel.set_xlabel("step along the first direction")
    if values.ndim == 1:
        panel.plot(steps, values)
        panel.set_ylabel(label)
        if log:
            panel.set_yscale("log")
        panel.axvline(0, color="black", linewidth=0.8, linestyle=":")
        return figure
    drawn = np.log10(values.T) if log else values.T
    filled = panel.contourf(steps, steps, drawn, levels=24, cmap="viridis")
    panel.contour(steps, steps, drawn, levels=12, colors="white", linewidths=0.4, linestyles="-")
    panel.plot([0], [0], marker="+", color="red", markersize=10, linestyle="")
    panel.set_ylabel("step along the second direction")
    panel.grid(False)
    panel.set_aspect("equal")
    figure.colorbar(filled, label=f"log10 of {label}" if log else label)
    return figure
