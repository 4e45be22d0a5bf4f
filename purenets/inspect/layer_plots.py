"""Figures of what layers give out, of their gradients and of their weights.

========================  ============================================================
:func:`plot_activity`     deviation, zeros and dead units from the first layer to the last
:func:`plot_gradients`    gradient norms from the first layer to the last
:func:`weight_pictures`   the weights of each unit or filter as a picture
========================  ============================================================

Under ``repeat`` and ``ensemble`` each member has a place of its own, all layers of one before those of the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purenets.errors import describe
from purenets.inspect.activity import Activity
from purenets.inspect.drawing import axes, figure_of, legend
from purenets.inspect.gradient_sizes import GradientSizes
from purenets.paths import flatten, matching

__all__ = ["plot_activity", "plot_gradients", "weight_pictures"]


def plot_activity(activity: Activity) -> Any:
    """The output of every layer: its deviation, its share of zeros and of dead units, in the order of the model.

    Args:
        activity: of :func:`purenets.inspect.activity`.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no layers.
    """
    found = {
        name: _in_depth({path or "(the model)": getattr(one, name) for path, one in activity.layers.items()})
        for name in ("deviation", "zeros", "dead")
    }
    figure, (left, right) = _down(list(found["deviation"]), panels=2)
    _points(left, found["deviation"].values())
    left.set_xlabel("deviation of the output")
    for name, label in (("zeros", "entries that are zero"), ("dead", "units that are dead")):
        _points(right, [100 * share for share in found[name].values()], label)
    right.set_xlabel("share [%]")
    right.set_xlim(-3, 103)
    legend(right)
    return figure


def plot_gradients(sizes: GradientSizes, order: Sequence[str] | None = None) -> Any:
    """The norm of every layer's gradient, from the first layer to the last, and as a share of the params' norm.

    Scales are logarithmic, so a gradient that vanishes or explodes on its way back is a straight slope.

    Args:
        sizes: of :func:`purenets.inspect.gradient_sizes`.
        order: paths of layers from input to output, such as ``pn.layer_paths(model)``, of which those without params
            are passed over; by default sorted, with numbers read as numbers.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no layers, or ``order`` misses one.
    """
    known = sizes.layers()
    layers = list(sizes.layers(None if order is None else [path for path in order if path in known]))
    gradients, params = (_in_depth(_of_layers(leaves, layers)) for leaves in (sizes.gradients, sizes.params))
    figure, (left, right) = _down(list(gradients), panels=2)
    _points(left, gradients.values())
    left.set_xlabel("norm of the gradient")
    # A layer of zeros has no share, and a logarithm leaves out what is zero.
    shares = [g / p if p else math.nan for g, p in zip(gradients.values(), params.values(), strict=True)]
    _points(right, shares)
    right.set_xlabel("norm of the gradient / norm of the params")
    for panel, values in ((left, list(gradients.values())), (right, shares)):
        if any(value > 0 for value in values):
            panel.set_xscale("log")
    return figure


def _of_layers(leaves: Mapping[str, Any], layers: Sequence[str]) -> dict[str, np.ndarray]:
    """The norm of each layer, of one that is stacked for each member."""
    squares: dict[str, Any] = dict.fromkeys(layers, 0.0)
    for path, norm in leaves.items():
        squares[path.rpartition("/")[0]] = squares[path.rpartition("/")[0]] + np.square(
            np.asarray(norm, np.float64)
        )
    return {layer or "(the model)": np.sqrt(square) for layer, square in squares.items()}


def _in_depth(found: Mapping[str, Any]) -> dict[str, float]:
    """One number for each layer, and for each member of those that are stacked together."""
    arrays = {path: np.asarray(value, np.float64) for path, value in found.items()}
    out: dict[str, float] = {}
    key = lambda path: (arrays[path].shape, path.split("/")[0] if arrays[path].ndim else path)
    for _, group in itertools.groupby(arrays, key):
        together = list(group)
        for member in np.ndindex(arrays[together[0]].shape):
            for path in together:
                name = "".join([path, *(f"[{i}]" for i in member)])
                out[name] = float(arrays[path][member])
    if not out:
        raise ValueError("there are no layers to draw")
    return out


def _down(names: Sequence[str], panels: int) -> tuple[Any, list[Any]]:
    """A figure with a line for each name, in panels beside each other."""
    figure = figure_of(8, min(1.4 + 0.2 * len(names), 16))
    drawn = axes(figure, 1, panels)
    step = -(-len(names) // 72)  # as many labels as there is room for
    for panel in drawn:
        panel.set_yticks(
            range(0, len(names), step), names[::step] if panel is drawn[0] else [""] * len(names[::step])
        )
        panel.tick_params(axis="y", labelsize=7)
        panel.set_ylim(len(names) - 0.5, -0.5)
    drawn[0].set_ylabel("layer")
    return figure, drawn


def _points(panel: Any, values: Any, label: str | None = None) -> None:
    values = list(values)
    panel.plot(values, range(len(values)), marker="o", markersize=4, linewidth=0.8, label=label)


def weight_pictures(
    params: Mapping[str, Any],
    path: str,
    *,
    shape: Sequence[int] | None = None,
    count: int = 64,
    columns: int = 8,
) -> Any:
    """The weights of a first layer as pictures, one for each unit or filter.

    Of a convolution with three channels they are in colour, from the least weight to the largest of each; otherwise the
    colours tell the sign, on one scale for all.

    Args:
        params: a model's params.
        path: of one kernel, or a pattern of it: ``"**/stem/kernel"``; a dense ``[in, out]`` or a convolution's
            ``[height, width, in, out]``.
        shape: of a dense layer's input before it was flattened, ``(height, width)`` or with channels after; by default
            a square.
        count: draw at most so many.
        columns: pictures in a row.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the pattern matches no leaf or several, the leaf is neither of the two, or the shape does not fit.
    """
    flat = flatten(dict(params))
    matched = matching(path, flat)
    if len(matched) > 1:
        raise ValueError(f"weight_pictures draws one leaf, {path!r} matches {', '.join(matched)}")
    pictures = _pictures(matched[0], np.asarray(flat[matched[0]], np.float64), shape)[:count]
    rows = -(-len(pictures) // columns)
    figure = figure_of(0.9 + 1.0 * min(columns, len(pictures)), 0.7 + 1.15 * rows)
    grid = figure.subplots(rows, min(columns, len(pictures)), squeeze=False)
    colour = pictures.ndim == 4
    limit = float(np.abs(pictures).max()) or 1.0
    shown = None
    for number, panel in enumerate(grid.flat):
        panel.axis("off")
        if number < len(pictures):
            one = pictures[number]
            panel.set_title(str(number), fontsize=7)
            if colour:
                panel.imshow((one - one.min()) / (np.ptp(one) or 1.0))
            else:
                shown = panel.imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.suptitle(f"{matched[0]} {list(np.shape(flat[matched[0]]))}, by output", fontsize=9)
    if shown is not None:
        figure.colorbar(shown, ax=grid, label="weight")
    return figure


def _pictures(path: str, kernel: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    """``[pictures, height, width]``, or with three channels at the end."""
    if kernel.ndim == 2:
        side = math.isqrt(kernel.shape[0])
        sizes = (side, side) if shape is None else tuple(shape)
        if math.prod(sizes) != kernel.shape[0] or len(sizes) not in (2, 3):
            given = "no square: give shape=(height, width)" if shape is None else f"not {tuple(shape)}"
            raise ValueError(f"{path} has {kernel.shape[0]} inputs, which are {given}")
        kernel = kernel.reshape(*sizes, *[1] * (3 - len(sizes)), -1)
    if kernel.ndim != 4:
        raise ValueError(
            f"weight_pictures needs a kernel [in, out] or [height, width, in, out], {path} is {describe(kernel)}"
        )
    pictures = np.moveaxis(kernel, -1, 0)
    if pictures.shape[-1] == 3:
        return pictures
    # Each channel is a picture, those of one output beside each other.
    return np.moveaxis(pictures, -1, 1).reshape(-1, *pictures.shape[1:3])
