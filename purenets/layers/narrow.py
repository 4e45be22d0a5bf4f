"""A product with few columns, whose gradient runs at full speed on a processor.

The gradient of a kernel ``[n_in, n_out]`` is a product whose result has as many columns as the kernel. XLA's CPU
backend keeps partial sums of such a product in registers along the rows of the result, and a row of ten or sixteen
numbers fills too few of them: the gradient of the last layer of a classifier takes 2 to 10 times as long as its
transpose does, which has long rows. So the transpose is what is computed, and then turned.

Values do not change; forward mode, reverse mode and any mixture of them work as always.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

__all__ = ["multiply"]

# From 48 columns on the plain gradient is as fast.
_WIDEST = 32


def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x @ kernel``: ``[..., n_in]`` by ``[n_in, n_out]``."""
    n_in, n_out = kernel.shape
    single = x.dtype == kernel.dtype and kernel.dtype in (jnp.float32, jnp.float64)
    narrow = n_out <= min(_WIDEST, n_in) and jax.default_backend() == "cpu"
    return _with_turned_gradient(x, kernel) if single and narrow else x @ kernel


@jax.custom_jvp
def _with_turned_gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]) -> tuple[jax.Array, Any]:
    (x, kernel), (dx, dk) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(_with_turned_gradient(dx, kernel))
    if not isinstance(dk, SymbolicZero):
        # Without the barrier XLA would take the two turns for none and choose the slow product again.
        turned = jax.lax.optimization_barrier(dk.T)
        parts.append(jax.lax.dot_general(x, turned, (((x.ndim - 1,), (1,)), ((), ()))))
    return _with_turned_gradient(x, kernel), sum(parts[1:], parts[0])


_with_turned_gradient.defjvp(_jvp, symbolic_zeros=True)
