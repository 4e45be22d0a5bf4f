"""Networks written down instead of trained: steps, bumps, and curves through given points.

Each function returns a :class:`Layer` of one hidden layer, ``[batch, 1]`` to ``[batch, 1]``, with params ``hidden`` and
``out`` of two dense layers, so that it can be looked at, applied, and trained further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.compose import serial
from purenets.layer import Layer, Params, layer

__all__ = ["bump", "given_dense", "piecewise_linear", "staircase", "sum_of_bumps", "sum_of_steps"]


def given_dense(kernel: Any, bias: Any, label: str = "given_dense") -> Layer:
    """A dense layer that begins with these weights: ``kernel [n_in, n_out]`` and ``bias [n_out]``."""
    values = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        # Exact constructions need all digits, which accelerators leave out by default.
        return jnp.matmul(x, params["kernel"], precision="highest") + params["bias"]

    return layer(lambda _key: values, apply, label=label)


def _two_layers(
    slopes: Any, offsets: Any, heights: Any, level: float, activation: Callable[..., Any]
) -> Layer:
    """``level + sum heights activation(slopes x + offsets)``."""
    heights = np.asarray(heights, np.float64)
    return serial(
        hidden=given_dense(np.asarray(slopes, np.float64)[None], np.asarray(offsets, np.float64)),
        activation=activation,
        out=given_dense(heights[:, None], np.array([level])),
    )


def sum_of_steps(
    at: Sequence[float], heights: Sequence[float], *, gain: float = 100.0, level: float = 0.0
) -> Layer:
    """``level + sum c_i sigmoid(gain (x - a_i))``: a step of height ``c_i`` at each ``a_i``.

    The area between such a sigmoid of height 1 and the step is ``2 ln 2 / gain``.

    Raises:
        ValueError: there is not one height for each place.
    """
    places = _matched("sum_of_steps", at, heights)
    return _two_layers(np.full(len(places), gain), -gain * places, heights, level, jax.nn.sigmoid)


def bump(low: float, high: float, height: float = 1.0, *, gain: float = 100.0) -> Layer:
    """``height`` between ``low`` and ``high`` and 0 elsewhere: a step up and a step down."""
    return sum_of_bumps([(low, high)], [height], gain=gain)


def sum_of_bumps(
    intervals: Sequence[tuple[float, float]], heights: Sequence[float], *, gain: float = 100.0
) -> Layer:
    """A bump over each interval: any piecewise constant function, two units for each piece."""
    places = [place for interval in intervals for place in interval]
    signed = [sign * height for height in heights for sign in (1, -1)]
    return sum_of_steps(places, signed, gain=gain)


def staircase(
    fn: Callable[[np.ndarray], np.ndarray], low: float, high: float, steps: int, *, gain: float
) -> Layer:
    """A function between two places as so many flat pieces, each as high as the function in its middle."""
    edges = np.linspace(low, high, steps + 1)
    values = np.asarray(fn((edges[:-1] + edges[1:]) / 2))
    return sum_of_steps(edges[1:-1].tolist(), np.diff(values).tolist(), gain=gain, level=float(values[0]))


def piecewise_linear(x: Sequence[float], y: Sequence[float]) -> Layer:
    """The curve through given points, straight between them and constant outside, exactly: one ReLU for each point.

    It is the sum of one ramp, two ReLUs, for each piece; the ReLUs that two pieces share are one.

    Raises:
        ValueError: there are fewer than two points, they are not in ascending order, or x and y differ in number.
    """
    places = _matched("piecewise_linear", x, y)
    if len(places) < 2 or np.any(np.diff(places) <= 0):
        raise ValueError(f"piecewise_linear needs two or more places in ascending order, got {list(x)}")
    slopes = np.concatenate([[0.0], np.diff(y) / np.diff(places), [0.0]])
    return _two_layers(np.ones(len(places)), -places, np.diff(slopes), float(y[0]), jax.nn.relu)


def _matched(name: str, x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    places = np.asarray(x, np.float64)
    if places.ndim != 1 or len(places) != len(y):
        raise ValueError(f"{name} needs as many places as values, got {len(places)} and {len(y)}")
    return places
