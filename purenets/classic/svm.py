"""Support vector machines: the plane of the largest margin, in the space that a kernel spans (Cortes & Vapnik 1995).

The dual problem, ``maximise sum a - 1/2 a^T (y y^T K) a`` over ``0 <= a <= C``, is solved by going up along one
coordinate after another. The bias is part of the kernel, ``K + 1``, so that no constraint ties the coordinates; this
penalises it, as LIBLINEAR does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.checks import concrete
from purenets.classic.perceptron import check_signs
from purenets.errors import describe
from purenets.layer import Params

__all__ = ["SVM", "fit_svm", "fit_svm_by_gradient", "linear", "polynomial", "rbf", "svm_score"]

Kernel = Callable[[jax.Array, jax.Array], jax.Array]


def linear(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a . b`` of all pairs of rows: ``[n, m]``."""
    return a @ b.T


def polynomial(degree: int = 3, *, scale: float = 1.0, offset: float = 1.0) -> Kernel:
    """``(scale a . b + offset)^degree``."""
    return lambda a, b: (scale * (a @ b.T) + offset) ** degree


def rbf(gamma: float = 1.0) -> Kernel:
    """``exp(-gamma |a - b|^2)``."""

    def kernel(a: jax.Array, b: jax.Array) -> jax.Array:
        squares = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1) - 2 * a @ b.T
        return jnp.exp(-gamma * jnp.maximum(squares, 0))

    return kernel


class SVM(NamedTuple):
    """A fitted machine."""

    x: jax.Array
    """The examples ``[n, features]``."""
    weights: jax.Array
    """``[n]``: ``a y``, not zero for the support vectors alone."""
    gap: jax.Array
    """How far the dual solution is from optimal, relative to it: primal minus dual."""


def fit_svm(
    x: jax.Array, y: jax.Array, kernel: Kernel = linear, *, cost: float = 1.0, sweeps: int = 200
) -> SVM:
    """Solve the dual by projected coordinate ascent: ``sweeps`` times over all examples.

    Args:
        x: ``[n, features]``.
        y: ``[n]``, -1 and +1.
        kernel: of all pairs of rows; the Gram matrix takes n^2 numbers.
        cost: C, the price of a unit of margin that is lacking.
        sweeps: passes over the coordinates.

    Raises:
        ValueError: labels are known to be no signs; the kernel matrix is known not to be symmetric or positive
            semidefinite, or the cost not to be positive.
    """
    check_signs("fit_svm", x, y)
    if concrete(cost) is not None and cost <= 0:
        raise ValueError(f"fit_svm needs a positive cost, got {cost}")
    gram = kernel(x, x)
    _check_kernel(gram)
    q = (gram + 1) * (y[:, None] * y)

    def coordinate(i: jax.Array, a: jax.Array) -> jax.Array:
        slope = 1 - q[i] @ a
        return a.at[i].set(jnp.clip(a[i] + slope / q[i, i], 0, cost))

    def sweep(a: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jax.lax.fori_loop(0, len(x), coordinate, a), None

    a, _ = jax.lax.scan(sweep, jnp.zeros(len(x), gram.dtype), None, length=sweeps)
    curved = a @ q @ a
    dual = jnp.sum(a) - curved / 2
    primal = curved / 2 + cost * jnp.sum(jnp.maximum(0, 1 - q @ a))
    return SVM(x, a * y, (primal - dual) / jnp.maximum(jnp.abs(primal), 1e-30))


def _check_kernel(gram: jax.Array) -> None:
    known = concrete(gram)
    if known is None:
        return
    size = float(np.abs(known).max()) or 1.0
    if not np.allclose(known, known.T, atol=1e-5 * size):
        raise ValueError(
            f"the kernel is not symmetric: its matrix {describe(gram)} differs from its transpose"
        )
    least = float(np.linalg.eigvalsh(np.asarray(known, np.float64)).min())
    if least < -1e-4 * size:
        error = ValueError(
            f"the kernel is not positive semidefinite: its matrix has the eigenvalue {least:.3g}"
        )
        error.add_note("no space has these inner products; a sigmoid or a difference of kernels may do this")
        raise error


def svm_score(machine: SVM, x: jax.Array, kernel: Kernel = linear) -> jax.Array:
    """The signed distance from the plane, in units of the margin: ``[m]``."""
    return (kernel(x, machine.x) + 1) @ machine.weights


def fit_svm_by_gradient(x: jax.Array, y: jax.Array, *, cost: float = 1.0, steps: int = 5000) -> Params:
    """The linear machine from the other side: subgradients of ``1/2 |w, b|^2 + C sum hinge`` (Pegasos, 2007).

    Steps of ``1 / t`` over the whole data, and the mean of the later half of the weights.

    Raises:
        ValueError: labels are known to be no signs.
    """
    check_signs("fit_svm_by_gradient", x, y)
    scale = 1 / (cost * len(x))

    def step(w: Any, t: jax.Array) -> Any:
        inside = y * (x @ w["kernel"] + w["bias"]) < 1
        pull = inside * y / len(x)
        rate = 1 / (scale * (t + 1))
        w = {
            "kernel": w["kernel"] - rate * (scale * w["kernel"] - pull @ x),
            "bias": w["bias"] - rate * (scale * w["bias"] - jnp.sum(pull)),
        }
        return w, w

    start = {"kernel": jnp.zeros(x.shape[1], x.dtype), "bias": jnp.zeros((), x.dtype)}
    _, path = jax.lax.scan(step, start, jnp.arange(steps, dtype=x.dtype))
    return jax.tree.map(lambda leaf: leaf[steps // 2 :].mean(0), path)
