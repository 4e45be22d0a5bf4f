"""How a loss curves around a point of parameter space: the largest eigenvalues of its Hessian, and its trace.

The Hessian of a million params has a million million entries and is never made: all that is used are its products
with vectors, :func:`purenets.gradients.hessian_vector`, each at the cost of a few gradients.

*Lanczos* builds an orthonormal basis of what the products of one random vector span, ``v, Hv, H²v, ...``, in which
the Hessian is tridiagonal. The ends of the spectrum of that small matrix approach those of the Hessian within few
products, the better the farther they stand out. Rounding makes a new basis vector lean on the old ones, and then the
same eigenvalue is found many times over; here each is made orthogonal to all of them, twice.

*Hutchinson's* estimate of the trace is the mean of ``v · Hv`` over vectors of random signs.

The loss is a function of the params alone; for a model in training let it close over one batch, or over the mean of
many. Gradient descent at rate ``r`` is stable where the largest eigenvalue, the *sharpness*, is below ``2 / r``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from purenets.gradients import hessian_vector
from purenets.layer import Key, Params
from purenets.paths import path_of

__all__ = ["Eigenvalues", "Estimate", "hessian_eigenvalues", "hessian_trace"]

Vector = jax.Array


class Eigenvalues(NamedTuple):
    """The largest eigenvalues, in falling order."""

    values: jax.Array
    """``[count]``"""
    vectors: Params
    """Of length one, a tree like the params with an axis ``[count]`` in front of every leaf."""
    residuals: jax.Array
    """``[count]``: no farther than this from each value there is an eigenvalue of the Hessian, up to rounding."""


class Estimate(NamedTuple):
    """A random estimate."""

    mean: jax.Array
    error: jax.Array
    """Its standard error."""


def hessian_eigenvalues(
    loss: Callable[[Any], jax.Array], params: Params, key: Key, count: int = 1, steps: int = 30
) -> Eigenvalues:
    """The largest eigenvalues of the Hessian of a loss at ``params``, by Lanczos's method (Lanczos 1950).

    Holds ``steps`` vectors of the size of the params, in float32 at least. The smallest eigenvalues are minus
    the largest ones of minus the loss.

    Args:
        loss: of the params alone, ``loss(params) -> scalar``.
        params: where; real floating point arrays.
        key: of the vector to start from.
        count: how many eigenvalues.
        steps: how many products with the Hessian. As many as there are parameters give the whole spectrum, up to
            rounding, and more are not made.

    Raises:
        ValueError: a leaf is not real floating point; ``count`` is not from 1 to the number of steps, or there are
            fewer parameters.

    >>> bowl = lambda p: p["w"] @ (jnp.array([3.0, 1.0, -2.0]) * p["w"]) / 2
    >>> top = hessian_eigenvalues(bowl, {"w": jnp.ones(3)}, jax.random.key(0), count=2)
    >>> top.values.round(4).tolist()
    [3.0, 1.0]
    """
    _check_real("hessian_eigenvalues", params)
    times, start, unravel = _flat_product(loss, params)
    steps = min(steps, start.size)
    if not 1 <= count <= steps:
        raise ValueError(
            f"hessian_eigenvalues needs a count from 1 to its {steps} steps (there are {start.size:,} parameters), "
            f"got {count}"
        )
    basis, diagonal, beside = _lanczos(times, start, key, steps)
    small = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    values, within = jnp.linalg.eigh(small)
    values, within = values[::-1][:count], within[:, ::-1][:, :count]
    vectors = _matmul(within.T, basis)
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    # What the basis does not hold of H v is its next vector alone, by the last entry (Parlett 1980, section 13.2).
    return Eigenvalues(values, jax.vmap(unravel)(vectors), jnp.abs(beside[-1] * within[-1]))


def _lanczos(
    times: Callable[[Vector], Vector], like: Vector, key: Key, steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The basis ``[steps, size]``, and the diagonal and the one beside it of the Hessian in it, ``[steps]`` each."""
    eps = jnp.finfo(like.dtype).eps

    def random(number: jax.Array | int) -> Vector:
        return jax.random.normal(jax.random.fold_in(key, number), like.shape, like.dtype)

    def unit(v: Vector) -> Vector:
        return v / jnp.linalg.norm(v)

    def beyond(v: Vector, basis: jax.Array) -> Vector:
        for _ in range(2):  # once leaves what rounding made of the larger part that was taken away
            v = v - _matmul(_matmul(basis, v), basis)
        return v

    def step(
        number: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array, Vector, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array, Vector, jax.Array]:
        basis, diagonal, beside, v, scale = carry
        basis = basis.at[number].set(v)
        product = times(v)
        scale = jnp.maximum(scale, jnp.linalg.norm(product))
        rest = beyond(product, basis)
        length = jnp.linalg.norm(rest)
        # Nothing new: the basis holds all that it can reach, and goes on from a new vector beside it. So an
        # eigenvalue that the Hessian has twice is found twice.
        closed = length <= 10 * eps * scale
        fresh = lambda: unit(beyond(unit(beyond(random(number + 1), basis)), basis))
        v = jax.lax.cond(closed, fresh, lambda: rest / length)
        diagonal = diagonal.at[number].set(_matmul(basis[number], product))
        return basis, diagonal, beside.at[number].set(jnp.where(closed, 0, length)), v, scale

    zeros = jnp.zeros(steps, like.dtype)
    basis = jnp.zeros((steps, like.size), like.dtype)
    first = (basis, zeros, zeros, unit(random(0)), jnp.zeros((), like.dtype))
    basis, diagonal, beside, *_ = jax.lax.fori_loop(0, steps, step, first)
    return basis, diagonal, beside


def hessian_trace(loss: Callable[[Any], jax.Array], params: Params, key: Key, samples: int = 100) -> Estimate:
    """The trace of the Hessian of a loss at ``params``, by products with random signs (Hutchinson 1990).

    The variance of one sample is twice the sum of the squares off the diagonal: a diagonal Hessian needs two.

    Args:
        loss: of the params alone, ``loss(params) -> scalar``.
        params: where; real floating point arrays.
        key: of the signs.
        samples: how many products with the Hessian; the error falls with their square root.

    Raises:
        ValueError: a leaf is not real floating point, or there are fewer than two samples.

    >>> hessian_trace(lambda p: jnp.sum(p["w"] ** 3), {"w": jnp.ones(2)}, jax.random.key(0), samples=2)
    Estimate(mean=Array(12., dtype=float32), error=Array(0., dtype=float32))
    """
    _check_real("hessian_trace", params)
    if samples < 2:
        raise ValueError(f"hessian_trace needs two samples for its standard error, got {samples}")
    times, like, _ = _flat_product(loss, params)

    def sample(key: Key) -> jax.Array:
        v = jax.random.rademacher(key, like.shape, like.dtype)
        return _matmul(v, times(v))

    drawn = jax.lax.map(sample, jax.random.split(key, samples))
    return Estimate(drawn.mean(), drawn.std(ddof=1) / jnp.sqrt(jnp.asarray(samples, drawn.dtype)))


def _flat_product(
    loss: Callable[[Any], jax.Array], params: Params
) -> tuple[Callable[[Vector], Vector], Vector, Callable[[Vector], Params]]:
    """The Hessian's product with one long vector, the params as such a vector, and the way back to a tree."""
    wide = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), "float32")), params
    )
    flat, unravel = jax.flatten_util.ravel_pytree(wide)

    def times(vector: Vector) -> Vector:
        own = jax.tree.map(lambda leaf, v: v.astype(jnp.result_type(leaf)), params, unravel(vector))
        product: Vector = jax.flatten_util.ravel_pytree(hessian_vector(loss, params, own))[0]
        return product.astype(vector.dtype)

    return times, flat, unravel


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product in full precision, also on hardware that would round its factors."""
    return jnp.matmul(a, b, precision="highest")


def _check_real(name: str, params: Params) -> None:
    leaves = jax.tree.leaves_with_path(params)
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"{name} needs real floating point params, got {jnp.result_type(leaf)} at {path_of(path)!r}: let "
                "the loss close over what is not trained"
            )
    if not leaves:
        raise ValueError(f"{name} needs params, got none")
