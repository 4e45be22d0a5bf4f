"""Initializers of which the variance follows from the fans of the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax import Array

from purenets.initializers.basic import Initializer, default_float, refuse_negative

__all__ = [
    "Axes",
    "Distribution",
    "Mode",
    "fans",
    "glorot_normal",
    "glorot_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "random_walk",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
]

Axes: TypeAlias = int | Sequence[int]
"""One axis of a kernel, or several that count together."""
Mode: TypeAlias = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
"""Which fan the variance is divided by: one of them, or their arithmetic or geometric mean."""
Distribution: TypeAlias = Literal["normal", "truncated_normal", "uniform"]
"""What the weights are drawn from, at the same variance."""


def fans(
    shape: Sequence[int], in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> tuple[int, int]:
    """Fan-in and fan-out of a kernel; ``batch_axis`` counts for neither.

    Raises:
        ValueError: an axis is missing from the shape, or has two roles.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    >>> fans((64, 8, 16), in_axis=0, out_axis=(1, 2))
    (64, 128)
    """
    roles = [(axes,) if isinstance(axes, int) else tuple(axes) for axes in (in_axis, out_axis, batch_axis)]
    for axis in (axis for axes in roles for axis in axes):
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"fans need axis {axis} for in, out or batch, got shape {tuple(shape)} of {len(shape)} axes: "
                "a bias or a scale has no fans, give it zeros, ones, constant or normal"
            )
    places = [[axis % len(shape) for axis in axes] for axes in roles]
    flat = [axis for axes in places for axis in axes]
    if len(set(flat)) != len(flat):
        raise ValueError(f"in, out and batch axes {tuple(roles)} of shape {tuple(shape)} overlap")
    size_in, size_out, _ = (math.prod(shape[axis] for axis in axes) for axes in places)
    field = math.prod(size for axis, size in enumerate(shape) if axis not in flat)
    return size_in * field, size_out * field


def variance_scaling(
    scale: float,
    mode: Mode = "fan_in",
    distribution: Distribution = "normal",
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> Initializer:
    """Mean 0 and variance ``scale / n``, with n the fan that ``mode`` names: fan-in, fan-out, or their
    arithmetic or geometric mean. It is ``jax.nn.initializers.variance_scaling``, untruncated by default.

    The truncated normal is cut at two standard deviations and rescaled to that variance.

    Raises:
        ValueError: ``scale`` is negative, ``mode`` or ``distribution`` unknown; from the initializer: the
            shape has no fans.
    """
    refuse_negative("variance_scaling", "scale", scale)
    _refuse_unknown("variance_scaling", "mode", mode, Mode)
    _refuse_unknown("variance_scaling", "distribution", distribution, Distribution)
    draw = jax.nn.initializers.variance_scaling(scale, mode, distribution, in_axis, out_axis, batch_axis)

    def init(key: Array, shape: Sequence[int], dtype: Any = None) -> Array:
        fans(shape, in_axis, out_axis, batch_axis)
        # JAX divides by the fan, which is 0 here.
        return (
            jnp.zeros(shape, default_float(dtype))
            if 0 in shape
            else draw(key, tuple(shape), default_float(dtype))
        )

    return init


def xavier_normal(
    mode: Mode = "fan_in", *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Initializer:
    """N(0, 1/fan-in): keeps the variance through linear layers; ``mode="fan_out"`` that of the gradient."""
    return variance_scaling(1.0, mode, "normal", in_axis, out_axis, batch_axis)


def xavier_uniform(
    mode: Mode = "fan_in", *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> Initializer:
    """Uniform on ±sqrt(3 / fan-in), of the variance of :func:`xavier_normal`."""
    return variance_scaling(1.0, mode, "uniform", in_axis, out_axis, batch_axis)


# The same rule under the name that says no other.
lecun_normal, lecun_uniform = xavier_normal, xavier_uniform


def glorot_normal(*, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """N(0, 2 / (fan-in + fan-out)): the compromise between the forward and the backward condition."""
    return variance_scaling(1.0, "fan_avg", "normal", in_axis, out_axis, batch_axis)


def glorot_uniform(*, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> Initializer:
    """Uniform on ±sqrt(6 / (fan-in + fan-out)), of the variance of :func:`glorot_normal`."""
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis)


def kaiming_normal(
    slope: float = 0.0,
    mode: Mode = "fan_in",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> Initializer:
    """N(0, 2 / ((1 + slope²) fan-in)): keeps the second moment through layers of ReLUs.

    Args:
        slope: that of the activation left of zero: 0 for ReLU, 0.01 for a leaky one.
        mode: "fan_out" keeps the variance of the gradient instead.
        in_axis: input axis or axes of the kernel.
        out_axis: output axis or axes.
        batch_axis: axes that belong to no fan.
    """
    return variance_scaling(2 / (1 + slope**2), mode, "normal", in_axis, out_axis, batch_axis)


def kaiming_uniform(
    slope: float = 0.0,
    mode: Mode = "fan_in",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> Initializer:
    """Uniform on ±sqrt(6 / ((1 + slope²) fan-in)), of the variance of :func:`kaiming_normal`."""
    return variance_scaling(2 / (1 + slope**2), mode, "uniform", in_axis, out_axis, batch_axis)


def random_walk(
    activation: Literal["linear", "relu"] = "relu",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> Initializer:
    """N(0, g²/N) with N the fan-in and g such that the log-norm of the back-propagated gradient, a random
    walk over the layers, has no drift (Sussillo & Abbott 2014): deeper than :func:`kaiming_normal` can go.

    ``g = exp(1 / 2N)`` for linear layers, ``sqrt(2) exp(1.2 / (max(N, 6) - 2.4))`` for ReLU. The second is a
    fit: the drift it leaves is below 0.001 a layer for N >= 20 and grows to 0.07 for N <= 6.

    Raises:
        ValueError: ``activation`` is neither.
    """
    if activation not in ("linear", "relu"):
        raise ValueError(f"random_walk knows the activations 'linear' and 'relu', got {activation!r}")

    def init(key: Array, shape: Sequence[int], dtype: Any = None) -> Array:
        n = max(fans(shape, in_axis, out_axis, batch_axis)[0], 1)
        log_g = 1 / (2 * n) if activation == "linear" else math.log(2) / 2 + 1.2 / (max(n, 6) - 2.4)
        scaling = variance_scaling(math.exp(2 * log_g), "fan_in", "normal", in_axis, out_axis, batch_axis)
        return scaling(key, shape, dtype)

    return init


def _refuse_unknown(name: str, argument: str, value: str, known: Any) -> None:
    if value not in get_args(known):
        raise ValueError(f"{name} needs {argument} to be one of {', '.join(get_args(known))}, got {value!r}")
