"""Convolution whose gradients run at full speed wherever they stand.

XLA's CPU backend has fast convolutions for one layout only: channels last in the images, ``[*window, n_in, n_out]``
in the kernel. At the top of a program it rewrites every convolution into that layout, but not inside a loop, and
the two gradients that differentiation derives are not in it. A training step inside ``jax.lax.scan`` then costs
tens of times what it costs alone, and grouped kernels pay at the top too.

So the derivative is stated here with its operands transposed beforehand, such that the *transposed* maps, which
are the gradients, come out in the fast layout. Values do not change, and forward mode, reverse mode and any mixture
of them work as always. Other backends choose layouts themselves and get the plain operation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

__all__ = ["convolve"]


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    padding: str | tuple[tuple[int, int], ...],
    stride: tuple[int, ...],
    spread: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
) -> jax.Array:
    """The cross-correlation of ``x [batch, *space, n_in]`` with ``kernel [*window, n_in // groups, n_out]``.

    ``spread`` puts the places of ``x`` so far apart first, with zeros between, as a transposed convolution does.
    Both have one dtype.
    """
    options = (stride, padding, spread, dilation, groups)
    plain = jax.default_backend() != "cpu"
    return _correlate(options, x, kernel) if plain else _layout_aware(options, x, kernel)


def _correlate(
    options: tuple[Any, ...],
    x: jax.Array,
    kernel: jax.Array,
    layouts: tuple[tuple[int, ...], ...] | None = None,
    grouped: str = "feature_group_count",
) -> jax.Array:
    stride, padding, spread, dilation, groups = options
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=jax.lax.ConvDimensionNumbers(*(layouts or _channels_last(x.ndim - 2))),
        **{grouped: groups},
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _layout_aware(options: tuple[Any, ...], x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _correlate(options, x, kernel)


@partial(_layout_aware.defjvp, symbolic_zeros=True)
def _jvp(
    options: tuple[Any, ...], primals: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]
) -> tuple[jax.Array, Any]:
    (x, kernel), (dx, dk) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(_along_images(options, kernel, dx))
    if not isinstance(dk, SymbolicZero):
        parts.append(_along_kernel(options, x, dk))
    return _layout_aware(options, x, kernel), sum(parts[1:], parts[0])


def _along_images(options: tuple[Any, ...], kernel: jax.Array, dx: jax.Array) -> jax.Array:
    """``dx * kernel``, with the kernel as ``[*window, n_out, n_in // groups]``: its transpose exchanges the two."""
    rank = dx.ndim - 2
    images, _, _ = _channels_last(rank)
    return _correlate(
        options, dx, jnp.swapaxes(kernel, -1, -2), (images, (rank, rank + 1, *range(rank)), images)
    )


def _along_kernel(options: tuple[Any, ...], x: jax.Array, dk: jax.Array) -> jax.Array:
    """``x * dk``, with channels and batch exchanged in ``x`` and the result: the transpose sums over the batch
    as a convolution sums over channels. The groups of channels stand as groups of the batch.
    """
    rank, groups = x.ndim - 2, options[-1]
    space = tuple(range(1, rank + 1))
    batch, n_in = x.shape[0], x.shape[-1]
    grouped = x.reshape(*x.shape[:-1], groups, n_in // groups)
    exchanged = jnp.transpose(grouped, (rank + 2, *space, rank + 1, 0))
    y = _correlate(
        options,
        exchanged.reshape(n_in // groups, *x.shape[1:-1], groups * batch),
        jnp.moveaxis(dk, -2, 0),
        ((rank + 1, 0, *space), (rank + 1, 0, *space), (rank, rank + 1, *range(rank))),
        "batch_group_count",
    )
    return jnp.moveaxis(y, -2, 0)


def _channels_last(rank: int) -> tuple[tuple[int, ...], ...]:
    """Where ``[batch, *space, channels]`` and ``[*window, n_in, n_out]`` have their axes, as ``lax`` counts them."""
    images = (0, rank + 1, *range(1, rank + 1))
    return images, (rank + 1, rank, *range(rank)), images
