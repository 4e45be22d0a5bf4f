"""Pooling: the largest or the mean value of each window over space, channels last.

Where windows do not overlap, the largest value is taken over slices of the input instead of by
``lax.reduce_window``, whose gradient is slow on CPU. Values that tie then share the gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from purenets.layer import Layer, Params, describe, layer
from purenets.layers.conv import Padding, Sizes, check_fits, check_space, paddings, sizes_of

__all__ = ["adaptive_average_pool", "average_pool", "global_average_pool", "global_max_pool", "max_pool"]


def max_pool(window: Sizes, *, stride: Sizes | None = None, padding: Padding = "VALID") -> Layer:
    """The largest value of each window: ``[batch, *space, channels]``.

    Args:
        window: size over each axis of space; a number is a square.
        stride: step of the window, by default the window itself.
        padding: as of ``conv``; what is padded never is the largest.

    Raises:
        ValueError: the input is not ``[batch, *space, channels]``, or is smaller than the window.

    >>> max_pool(2).apply({}, {}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0].ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    label, sizes, strides, pads = _window("max_pool", window, stride, padding)

    def apply(_params: Params, x: jax.Array) -> jax.Array:
        check_space(label, x, len(sizes))
        check_fits(label, x, sizes, (1,) * len(sizes), pads)
        if sizes == strides and pads == "VALID":
            return _largest(x, sizes)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *sizes, 1), (1, *strides, 1), _all(pads))

    return layer(None, apply, label=label)


def average_pool(
    window: Sizes, *, stride: Sizes | None = None, padding: Padding = "VALID", count_padding: bool = True
) -> Layer:
    """The mean value of each window: ``[batch, *space, channels]``.

    Args:
        window: size over each axis of space; a number is a square.
        stride: step of the window, by default the window itself.
        padding: as of ``conv``.
        count_padding: whether padded places count as zeros, as in Flax, or not at all.

    Raises:
        ValueError: as :func:`max_pool`.
    """
    label, sizes, strides, pads = _window("average_pool", window, stride, padding)

    def apply(_params: Params, x: jax.Array) -> jax.Array:
        check_space(label, x, len(sizes))
        check_fits(label, x, sizes, (1,) * len(sizes), pads)

        def total(values: jax.Array) -> jax.Array:
            window, step = (1, *sizes, 1), (1, *strides, 1)
            return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, step, _all(pads))

        if count_padding:
            return total(x) / math.prod(sizes)
        return total(x) / total(jnp.ones((1, *x.shape[1:-1], 1), x.dtype))

    return layer(None, apply, label=label)


def adaptive_average_pool(*space: int) -> Layer:
    """The mean of nearly equal windows, as many as wanted: ``[batch, *space, channels]`` of this space.

    Window i of n over a size s covers the places ``floor(i s / n)`` to ``ceil((i + 1) s / n)``, as in torch.

    Raises:
        ValueError: the input has another number of axes, or fewer places than windows.
    """
    label = f"adaptive_average_pool({', '.join(map(str, space))})"
    sizes_of(space, len(space), label)

    def apply(_params: Params, x: jax.Array) -> jax.Array:
        check_space(label, x, len(space))
        for axis, count in enumerate(space, 1):
            size = x.shape[axis]
            if size < count:
                raise ValueError(
                    f"{label} needs at least {count} places along axis {axis}, got {describe(x)}"
                )
            if size % count == 0:
                cut = x.reshape(*x.shape[:axis], count, size // count, *x.shape[axis + 1 :])
                x = cut.mean(axis + 1)
            else:
                x = jnp.stack([_part(x, axis, i, count).mean(axis) for i in range(count)], axis)
        return x

    return layer(None, apply, label=label)


def _part(x: jax.Array, axis: int, i: int, count: int) -> jax.Array:
    size = x.shape[axis]
    start, stop = i * size // count, -(-(i + 1) * size // count)
    return jax.lax.slice_in_dim(x, start, stop, axis=axis)


def global_average_pool() -> Layer:
    """The mean over all of space: ``[batch, *space, channels]`` to ``[batch, channels]``."""
    return _global("global_average_pool", jnp.mean)


def global_max_pool() -> Layer:
    """The largest value over all of space: ``[batch, *space, channels]`` to ``[batch, channels]``."""
    return _global("global_max_pool", jnp.max)


def _global(label: str, reduce: object) -> Layer:
    def apply(_params: Params, x: jax.Array) -> jax.Array:
        check_space(label, x, max(1, jnp.ndim(x) - 2))
        return reduce(x, tuple(range(1, x.ndim - 1)))  # type: ignore[operator]

    return layer(None, apply, label=label)


def _window(
    name: str, window: Sizes, stride: Sizes | None, padding: Padding
) -> tuple[str, tuple[int, ...], tuple[int, ...], str | tuple[tuple[int, int], ...]]:
    rank = 2 if isinstance(window, int) else len(window)
    label = f"{name}({window})"
    sizes = sizes_of(window, rank, f"{label}: window")
    strides = sizes if stride is None else sizes_of(stride, rank, f"{label}: stride")
    return label, sizes, strides, paddings(padding, rank, label)


def _all(pads: str | tuple[tuple[int, int], ...]) -> str | tuple[tuple[int, int], ...]:
    """Padding of every axis, batch and channels included."""
    return pads if isinstance(pads, str) else ((0, 0), *pads, (0, 0))


def _largest(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """The largest value of windows side by side, one axis after another: fewer slices than places in a window."""
    for axis, size in enumerate(sizes, 1):
        whole = size * (x.shape[axis] // size)
        places = [jax.lax.slice_in_dim(x, i, whole, size, axis) for i in range(size)]
        x = functools.reduce(jnp.maximum, places)
    return x
