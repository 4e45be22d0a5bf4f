"""Regularizers: what a model pays for its weights, beside what it pays for its errors.

``J(params) = L(params) + scale R(params)``. A *regularizer* is a function of one kernel, ``[..., in, out]``,
to a number that grows with what is not wanted; :func:`penalty` adds it up over the kernels of a model and
multiplies it by the scale. Biases are left out by default, and are named if they are wanted.

Added to the loss, a penalty goes through the optimizer like everything else. *Decoupled* weight decay does
not, and is another thing under any optimizer but plain gradient descent (Loshchilov and Hutter 2019).

Kernels stacked by ``repeat`` or ``ensemble`` have an axis more in front. That is nothing to :func:`l1` and
:func:`l2`; for what looks at a kernel as a matrix give ``lambda k: jnp.sum(jax.vmap(orthogonality)(k))``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from purenets.checks import at_least_float32
from purenets.errors import describe
from purenets.layer import Key, Params, State
from purenets.paths import Where, flatten, matching

__all__ = [
    "Regularized",
    "Regularizer",
    "elastic_net",
    "l1",
    "l2",
    "max_norm",
    "orthogonality",
    "penalty",
    "regularized",
]

Regularizer: TypeAlias = Callable[[Array], Array]
"""From a leaf of the params to a number that is added to the loss."""


def l1(kernel: ArrayLike) -> Array:
    """``sum |w|``, which drives weights to exactly zero."""
    return jnp.sum(jnp.abs(at_least_float32(kernel)))


def l2(kernel: ArrayLike) -> Array:
    """``sum w²``, without a half: the usual ``lambda / 2m`` of ``m`` examples belongs to the scale."""
    return jnp.sum(jnp.square(at_least_float32(kernel)))


def elastic_net(l1_ratio: float) -> Regularizer:
    """``l1_ratio sum |w| + (1 - l1_ratio) / 2 sum w²`` (Zou and Hastie 2005; scikit-learn's scaling)."""
    return lambda kernel: l1_ratio * l1(kernel) + (1 - l1_ratio) / 2 * l2(kernel)


def orthogonality(kernel: ArrayLike) -> Array:
    """How far a kernel is from keeping lengths: ``‖KᵀK - I‖²``, Frobenius norm (Bansal et al. 2018, "soft").

    A kernel with more columns than rows cannot have orthonormal columns; then it is about its rows,
    ``‖KKᵀ - I‖²``. A convolution's kernel ``[h, w, in, out]`` counts as a matrix ``[h w in, out]``.

    Raises:
        ValueError: the kernel is a vector or a scalar.
    """
    matrix = _matrix("orthogonality", at_least_float32(kernel))
    n_in, n_out = matrix.shape
    gram = matrix.T @ matrix if n_in >= n_out else matrix @ matrix.T
    return jnp.sum(jnp.square(gram - jnp.eye(len(gram), dtype=gram.dtype)))


def max_norm(kernel: ArrayLike, limit: float) -> Array:
    """The kernel with the weights into each unit scaled down to norm ``limit`` where they exceed it.

    Not a penalty but a projection, for after an update (Srebro and Shraibman 2005):
    ``paths.map_matching("**/kernel", partial(max_norm, limit=3.0), params)``.

    Args:
        kernel: ``[..., in, out]``; what goes into a unit is all of ``kernel[..., unit]``.
        limit: the greatest norm, positive.

    Returns:
        An array of the kernel's shape and dtype.

    Raises:
        ValueError: the limit is not positive, or the kernel is a vector or a scalar.
    """
    if isinstance(limit, (int, float)) and not limit > 0:
        raise ValueError(f"max_norm needs a positive limit, got {limit}")
    given = jnp.asarray(kernel)
    wide = at_least_float32(given)
    squares = jnp.sum(jnp.square(_matrix("max_norm", wide)), 0)
    # Compared as squares, so that the derivative at zero weights is 1 and not NaN.
    over = squares > limit**2
    factor = jnp.where(over, limit / jnp.sqrt(jnp.where(over, squares, 1)), 1)
    return (wide * factor).astype(given.dtype)


def _matrix(name: str, kernel: Array) -> Array:
    if kernel.ndim < 2:
        raise ValueError(f"{name} needs a kernel [..., in, out], got {describe(kernel)}")
    return kernel.reshape(-1, kernel.shape[-1])


def penalty(
    params: Params, regularizer: Regularizer = l2, scale: ArrayLike = 1.0, *, where: Where = "**/kernel"
) -> Array:
    """``scale * sum of regularizer(leaf)`` over the params that ``where`` matches, a scalar.

    Raises:
        ValueError: a pattern matches nothing.

    >>> penalty({"dense": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([5.0])}}, l2, scale=0.5).item()
    4.5
    """
    leaves = flatten(params)
    total = sum((regularizer(leaves[path]) for path in matching(where, leaves)), jnp.float32(0))
    return jnp.multiply(scale, total)


@dataclass(frozen=True, eq=False)
class Regularized:
    """An objective plus a penalty; see :func:`regularized`."""

    objective: Callable[..., tuple[Array, tuple[State, dict[str, Array]]]]
    regularizer: Regularizer
    scale: ArrayLike
    where: Where

    def __call__(
        self, params: Params, state: State, batch: Any, key: Key | None, train: bool
    ) -> tuple[Array, tuple[State, dict[str, Array]]]:
        """The loss with the penalty, the new state and the metrics with ``penalty`` among them."""
        loss, (state, metrics) = self.objective(params, state, batch, key, train)
        price = penalty(params, self.regularizer, self.scale, where=self.where)
        return loss + price, (state, {**metrics, "penalty": metrics.get("penalty", 0) + price})

    def validate(self, params: Params, state: State, data: Any) -> None:
        """Hold data against the objective, as it does itself, and the pattern against the params."""
        matching(self.where, flatten(params))
        if validate := getattr(self.objective, "validate", None):
            validate(params, state, data)


def regularized(
    objective: Callable[..., tuple[Array, tuple[State, dict[str, Array]]]],
    regularizer: Regularizer = l2,
    scale: ArrayLike = 1.0,
    *,
    where: Where = "**/kernel",
) -> Regularized:
    """The objective with a penalty on the params added to its loss: an objective again.

    The metrics stay those of the objective, so that their ``loss`` compares with one on other data, and get
    the ``penalty`` beside them; penalties of several wrappers add up there.

    Args:
        objective: ``(params, state, batch, key, train) -> (loss, (state, metrics))``.
        regularizer: of one kernel.
        scale: what it is multiplied by; ``lambda / (2 m)`` for the lecture's L2 of ``m`` examples.
        where: which params pay.

    Raises:
        ValueError: (when called) a pattern matches nothing.
    """
    return Regularized(objective, regularizer, scale, where)
