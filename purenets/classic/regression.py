"""Linear models over fixed features: by closed form, by Newton's method, and the features themselves.

Every model is ``x @ kernel + bias`` with params ``{"kernel": [features, outputs], "bias": [outputs]}``, the params of
:func:`purenets.dense`, so gradient descent on the same layer is the other way to fit it.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp

from purenets.errors import describe
from purenets.layer import Params

__all__ = ["count_monomials", "fit_linear", "fit_logistic", "fit_softmax", "polynomial_features"]


def fit_linear(x: jax.Array, y: jax.Array, *, ridge: float | jax.Array = 0.0) -> Params:
    """Least squares, the bias not penalised: ``[n, features]`` and ``[n, outputs]`` or ``[n]``.

    Minimises ``sum |x W + b - y|^2 + ridge |W|^2``; with ``ridge`` 0 it is the solution of least norm.

    Raises:
        ValueError: the shapes are others.
    """
    targets = y[:, None] if jnp.ndim(y) == 1 else y
    if jnp.ndim(x) != 2 or jnp.ndim(targets) != 2 or len(x) != len(targets):
        raise ValueError(
            f"fit_linear needs x [n, features] and y [n, outputs], got {describe(x)} and {describe(y)}"
        )
    mean, level = x.mean(0), targets.mean(0)
    centred = x - mean
    u, s, vh = jnp.linalg.svd(centred, full_matrices=False)
    kept = s > jnp.finfo(x.dtype).eps * max(x.shape) * s[0]
    factors = jnp.where(kept, s / jnp.where(kept, s**2 + ridge, 1.0), 0.0)
    kernel = vh.T @ (factors[:, None] * (u.T @ (targets - level)))
    return {"kernel": kernel, "bias": level - mean @ kernel}


def fit_logistic(x: jax.Array, y: jax.Array, *, penalty: float = 1.0, steps: int = 30) -> Params:
    """Logistic regression by Newton's method: labels 0 and 1, ``[n]``.

    Minimises ``sum BCE + penalty / 2 |w|^2``, the bias not penalised: scikit-learn's ``C`` is ``1 / penalty``. The
    params are ``kernel [features, 1]`` and ``bias [1]``.
    """
    params = fit_softmax(x, jnp.stack([1 - y, y], 1), penalty=2 * penalty, steps=steps)
    kernel, bias = params["kernel"], params["bias"]
    return {"kernel": kernel[:, 1:] - kernel[:, :1], "bias": bias[1:] - bias[:1]}


def fit_softmax(x: jax.Array, shares: jax.Array, *, penalty: float = 1.0, steps: int = 30) -> Params:
    """Softmax regression by Newton's method, targets ``[n, classes]`` that sum to 1.

    Minimises ``sum CE + penalty / 2 |W|^2`` with the bias not penalised. Steps that would not lessen it are halved.

    Raises:
        ValueError: the shapes are not ``[n, features]`` and ``[n, classes]``.
    """
    if jnp.ndim(x) != 2 or jnp.ndim(shares) != 2 or len(x) != len(shares):
        raise ValueError(
            f"fit_softmax needs x [n, features] and shares [n, classes], got {describe(x)} and {describe(shares)}"
        )
    shape = (x.shape[1] + 1, shares.shape[1])

    def cost(flat: jax.Array) -> jax.Array:
        both = flat.reshape(shape)
        logits = x @ both[1:] + both[0]
        loss = jnp.sum(jax.nn.logsumexp(logits, 1) - jnp.sum(shares * logits, 1))
        return loss + penalty / 2 * jnp.sum(both[1:] ** 2)

    def newton(flat: jax.Array, _: None) -> tuple[jax.Array, None]:
        gradient, curvature = jax.grad(cost)(flat), jax.hessian(cost)(flat)
        # The same number added to all biases changes nothing, so the curvature lacks a direction.
        move = jnp.linalg.lstsq(curvature, -gradient)[0]
        sizes = 0.5 ** jnp.arange(12, dtype=flat.dtype)
        costs = jax.vmap(lambda size: cost(flat + size * move))(sizes)
        better = costs <= cost(flat)
        size = jnp.where(jnp.any(better), sizes[jnp.argmax(better)], 0.0)
        return flat + size * move, None

    flat, _ = jax.lax.scan(newton, jnp.zeros(math.prod(shape), x.dtype), None, length=steps)
    both = flat.reshape(shape)
    return {"kernel": both[1:], "bias": both[0]}


def polynomial_features(x: jax.Array, degree: int) -> jax.Array:
    """All monomials of degree 1 to ``degree``: ``[n, features]`` to ``[n, count]``.

    Degree by degree; within one in the order of the indices: x1, x2, x1 x1, x1 x2, x2 x2.
    """
    columns = [
        jnp.prod(x[:, jnp.array(indices)], 1)
        for power in range(1, degree + 1)
        for indices in itertools.combinations_with_replacement(range(x.shape[1]), power)
    ]
    return jnp.stack(columns, 1)


def count_monomials(n: int, degree: int) -> int:
    """How many monomials of exactly this degree n variables have: ``C(n + degree - 1, degree)``.

    >>> count_monomials(100, 2), count_monomials(100, 3), count_monomials(2500, 2)
    (5050, 171700, 3126250)
    """
    return math.comb(n + degree - 1, degree)
