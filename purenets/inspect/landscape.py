"""The loss around a point of parameter space, along directions that fit the size of the weights.

A ReLU network with batch norms computes the same when a filter is made larger, so a step of one length means much
for small weights and nothing for large ones. *Filter normalisation* (Li et al. 2018, section 4) therefore gives
the random direction of each filter the norm of that filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.layer import Key, Params
from purenets.paths import Where, flatten, matching, unflatten

__all__ = ["filter_normalized_direction", "landscape", "roughness"]


def filter_normalized_direction(key: Key, params: Params, *, stacked: Where | None = None) -> Params:
    """A random direction whose every filter has the norm of that filter in ``params``: ``d ||w|| / ||d||``.

    A filter is what feeds one output: all axes of a kernel but the last. Leaves of fewer than two axes, the
    biases and the scales of norms, stay where they are, as in the paper.

    Args:
        key: of the normal draws.
        params: where the direction starts from.
        stacked: leaves with one axis more in front, as ``repeat`` and ``ensemble`` make them.

    Raises:
        ValueError: a pattern of ``stacked`` matches no leaf.

    >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
    >>> d = filter_normalized_direction(jax.random.key(0), params)
    >>> [round(float(x), 4) for x in jnp.linalg.norm(d["kernel"], axis=0)], d["bias"].tolist()
    ([5.0, 2.0], [0.0, 0.0])
    """
    leaves = flatten(params)
    many = set(matching(stacked, leaves)) if stacked is not None else set()
    drawn = {}
    for (path, w), one in zip(leaves.items(), jax.random.split(key, len(leaves)), strict=True):
        axes = tuple(range(1 if path in many else 0, w.ndim - 1))
        if axes:
            d = jax.random.normal(one, w.shape, w.dtype)
            drawn[path] = d * (_norm(w, axes) / _norm(d, axes))
        else:
            drawn[path] = jnp.zeros_like(w)
    return unflatten(drawn)


def _norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))


def landscape(
    loss: Callable[[Any], jax.Array],
    params: Params,
    directions: Sequence[Params],
    at: Sequence[float] | jax.Array,
    *,
    together: int = 1,
) -> jax.Array:
    """The loss at ``params`` plus every combination of steps ``at`` along the directions, in one program.

    Args:
        loss: of the params alone, ``loss(params) -> scalar``.
        params: the middle.
        directions: one for a line, two for a surface; trees like ``params``.
        at: the steps, the same along each direction, ``[points]``.
        together: points to compute at once.

    Returns:
        ``[points]`` for one direction, ``[points, points]`` for two: the first direction is the first axis.

    Raises:
        ValueError: there is no direction, or ``together`` is not positive.

    >>> bowl = landscape(lambda p: p["w"] ** 2, {"w": jnp.array(1.0)}, [{"w": jnp.array(1.0)}], [-1.0, 0.0, 1.0])
    >>> bowl.tolist()
    [0.0, 1.0, 4.0]
    """
    if not directions or together < 1:
        raise ValueError(
            f"landscape needs a direction and points to compute together, got {len(directions)} and {together}"
        )
    steps = jnp.asarray(at, jnp.float32)
    grid = jnp.stack(jnp.meshgrid(*[steps] * len(directions), indexing="ij"), -1).reshape(-1, len(directions))

    def one(point: jax.Array) -> jax.Array:
        def moved(w: jax.Array, *ds: jax.Array) -> jax.Array:
            return w + sum(a.astype(w.dtype) * d for a, d in zip(point, ds, strict=True))

        return loss(jax.tree.map(moved, params, *directions))

    losses = jax.jit(lambda grid: jax.lax.map(one, grid, batch_size=together))(grid)
    return losses.reshape([len(steps)] * len(directions))


def roughness(surface: np.ndarray | jax.Array) -> float:
    """How far the lines of a surface are from a single valley each: 1 if all have one, larger for more.

    For each line along either axis: the sum of all rises and falls, over what it would be if the line fell to its
    least value and rose from there, or over its range where that is more. The mean over the lines that are not flat.

    Raises:
        ValueError: the surface holds a value that is not finite, or has lines of fewer than three points.

    >>> roughness(np.array([4.0, 1.0, 0.0, 1.0, 4.0])), roughness(np.array([4.0, 0.0, 4.0, 0.0, 4.0]))
    (1.0, 2.0)
    """
    values = np.asarray(surface, np.float64)
    if not np.isfinite(values).all() or min(values.shape) < 3:
        raise ValueError(
            f"roughness needs finite values and lines of three points at least, got shape {values.shape} with "
            f"{int((~np.isfinite(values)).sum())} values that are not finite"
        )
    ratios = []
    for axis in range(values.ndim):
        lines = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        valley = lines[:, 0] + lines[:, -1] - 2 * lines.min(1)
        least = np.maximum(valley, np.ptp(lines, 1))
        ratios.append(np.abs(np.diff(lines)).sum(1)[least > 0] / least[least > 0])
    every = np.concatenate(ratios)
    return float(every.mean()) if every.size else math.nan
