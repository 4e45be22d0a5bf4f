"""Leaves of any rank as matrices, and matrices made orthogonal by products alone.

The *rows* of a leaf's matrix run over its reduction axes (the inputs of a kernel), the *columns* over its
output axes; the axes that are neither make a batch of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from purenets.optim.base import Scalar

__all__ = ["Preconditioning", "as_matrices", "fans", "orthogonalize"]

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]
"""What a matrix is divided by before it is made orthogonal."""
Axes = int | Sequence[int]


def _axes(x: Any, axes: Axes) -> tuple[int, ...]:
    return tuple(axis % x.ndim for axis in ((axes,) if isinstance(axes, int) else axes))


def fans(x: Any, reduction_axis: Axes, output_axis: Axes) -> tuple[int, int]:
    """The number of rows and of columns."""
    return (
        math.prod(x.shape[axis] for axis in _axes(x, reduction_axis)),
        math.prod(x.shape[axis] for axis in _axes(x, output_axis)),
    )


def as_matrices(
    x: Any, reduction_axis: Axes, output_axis: Axes, who: str
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """A leaf as ``[batch, rows, columns]``, and the way back.

    Raises:
        ValueError: the leaf has fewer than two axes, or an axis is both a row and a column axis.
    """
    if x.ndim < 2:
        raise ValueError(f"{who} needs leaves of two or more axes, got shape {list(x.shape)}")
    rows, columns = _axes(x, reduction_axis), _axes(x, output_axis)
    if set(rows) & set(columns):
        raise ValueError(
            f"{who}: an axis cannot be both of the rows and of the columns, got reduction axes {rows} and "
            f"output axes {columns} of shape {list(x.shape)}"
        )
    batch = tuple(axis for axis in range(x.ndim) if axis not in rows + columns)
    order = batch + rows + columns
    apart = tuple(x.shape[axis] for axis in order)
    flat = (math.prod(apart[: len(batch)]), *fans(x, rows, columns))
    inverse = tuple(sorted(range(x.ndim), key=lambda axis: order[axis]))
    return x.transpose(order).reshape(flat), lambda y: y.reshape(apart).transpose(inverse)


def _newton_schulz(x: jax.Array, gram: jax.Array, coefficients: jax.Array) -> jax.Array:
    a, b, c = coefficients
    return a * x + (b * gram + c * gram @ gram) @ x


def _gram(x: jax.Array) -> jax.Array:
    return x @ jnp.conj(x).swapaxes(-1, -2)


def orthogonalize(
    x: jax.Array,
    coefficients: jax.Array,
    steps: Scalar = 5,
    preconditioning: Preconditioning = "frobenius",
    eps: Scalar = 1e-8,
) -> jax.Array:
    """Matrices ``[..., rows, columns]`` with their singular values driven to about 1.

    Args:
        x: the matrices; zero stays zero.
        coefficients: a triple for all steps, or ``[steps, 3]``.
        steps: the number of steps where there is one triple.
        preconditioning: how the matrices are scaled to a norm below 1 at first: ``"frobenius"`` and
            ``"spectral"`` divide by that norm, ``"aol"`` scales every row by the sum of its products with all
            (Boissin et al. 2025), ``"schatten"`` divides by the Schatten-4 norm (Grishina et al. 2025).
        eps: added to the norm.

    Raises:
        ValueError: another preconditioning, or coefficients of another shape.
    """
    if coefficients.ndim > 2 or coefficients.shape[-1] != 3:
        raise ValueError(
            f"Newton-Schulz coefficients have the shape [3] or [steps, 3], got {list(coefficients.shape)}"
        )
    if x.shape[-2] > x.shape[-1]:
        turned = orthogonalize(x.swapaxes(-1, -2), coefficients, steps, preconditioning, eps)
        return turned.swapaxes(-1, -2)
    triples = coefficients.astype(x.dtype)
    at = (lambda i: triples) if triples.ndim == 1 else (lambda i: triples[i])
    count: Any = steps if triples.ndim == 1 else triples.shape[0]
    begin = 0
    if preconditioning in ("frobenius", "spectral"):
        order: Any = "fro" if preconditioning == "frobenius" else 2
        x = x / (jnp.linalg.norm(x, ord=order, axis=(-2, -1), keepdims=True) + eps)
    elif preconditioning in ("aol", "schatten"):
        gram = _gram(x)
        if preconditioning == "aol":
            size = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
        else:
            size = jnp.linalg.norm(gram, axis=(-2, -1), keepdims=True)
        scale = jax.lax.rsqrt(jnp.maximum(size, 1e-8))
        # The first step uses the matrix of products that the scaling has needed anyway.
        x = _newton_schulz(x * scale, gram * scale * scale.swapaxes(-1, -2), at(0))
        begin = 1
    else:
        raise ValueError(
            f"preconditioning is 'frobenius', 'spectral', 'aol' or 'schatten', got {preconditioning!r}"
        )
    if isinstance(count, int):
        for i in range(begin, count):
            x = _newton_schulz(x, _gram(x), at(i))
        return x
    return jax.lax.fori_loop(begin, count, lambda i, y: _newton_schulz(y, _gram(y), at(i)), x)
