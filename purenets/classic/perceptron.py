"""The perceptron (Rosenblatt 1958) and the ADALINE (Widrow & Hoff 1960): linear units that learn.

Both decide by the sign of ``w . x + b``, labels being -1 and +1. The perceptron learns from wrong decisions alone,
``w <- w + rate (y - f) x``; the ADALINE from the error before the threshold, ``w <- w + rate (y - s) x``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.checks import concrete
from purenets.errors import describe
from purenets.layer import Params

__all__ = [
    "PerceptronFit",
    "check_signs",
    "decide",
    "fit_adaline",
    "fit_perceptron",
    "mistake_bound",
    "score",
]


class PerceptronFit(NamedTuple):
    """What :func:`fit_perceptron` gives."""

    params: Params
    """``kernel [features]`` and ``bias []``."""
    mistakes: jax.Array
    """``[epochs]``: wrong decisions, each of which changed the weights."""
    separated: jax.Array
    """Whether the last epoch had none. Data that no line separates never get there."""


def check_signs(name: str, x: jax.Array, y: jax.Array) -> None:
    """Refuse data that are not ``[n, features]`` with labels ``[n]`` of -1 and +1."""
    if jnp.ndim(x) != 2 or jnp.shape(y) != jnp.shape(x)[:1]:
        raise ValueError(f"{name} needs x [n, features] and y [n], got {describe(x)} and {describe(y)}")
    known = concrete(y)
    if known is not None and not np.isin(known, (-1, 1)).all():
        error = ValueError(f"{name} needs labels -1 and +1, got {sorted(set(np.ravel(known).tolist()))[:6]}")
        error.add_note("labels of 0 and 1 become signs by 2 * y - 1")
        raise error


def score(params: Params, x: jax.Array) -> jax.Array:
    """``w . x + b`` of each row."""
    return x @ params["kernel"] + params["bias"]


def decide(params: Params, x: jax.Array) -> jax.Array:
    """-1 or +1 of each row; a score of exactly 0 counts as +1."""
    return jnp.where(score(params, x) >= 0, 1.0, -1.0)


def _started(x: jax.Array) -> Params:
    return {"kernel": jnp.zeros(x.shape[1], x.dtype), "bias": jnp.zeros((), x.dtype)}


def fit_perceptron(
    x: jax.Array, y: jax.Array, *, epochs: int = 100, rate: float = 1.0, params: Params | None = None
) -> PerceptronFit:
    """Go through the examples ``epochs`` times, with ``w <- w + rate (y - f(x)) x`` and likewise for the bias.

    A wrong decision moves the weights by ``2 rate`` times the example; a right one by nothing.

    Args:
        x: ``[n, features]``.
        y: ``[n]``, -1 and +1.
        epochs: passes; the result says whether they were enough.
        rate: the learning rate.
        params: where to begin, zeros by default.

    Raises:
        ValueError: the shapes are others, or a label is known to be no sign.
    """
    check_signs("fit_perceptron", x, y)

    def example(params: Params, given: tuple[jax.Array, jax.Array]) -> tuple[Params, jax.Array]:
        now, label = given
        error = label - decide(params, now)
        moved = {"kernel": params["kernel"] + rate * error * now, "bias": params["bias"] + rate * error}
        return moved, error != 0

    def epoch(params: Params, _: None) -> tuple[Params, jax.Array]:
        params, wrong = jax.lax.scan(example, params, (x, y.astype(x.dtype)))
        return params, jnp.sum(wrong)

    fitted, mistakes = jax.lax.scan(epoch, params or _started(x), None, length=epochs)
    return PerceptronFit(fitted, mistakes, mistakes[-1] == 0)


def mistake_bound(x: jax.Array, y: jax.Array, params: Params) -> jax.Array:
    """At most so many mistakes from zero weights, given params that separate the data (Novikoff 1962).

    ``(R / margin)^2``, where R is the longest example and the margin the least distance of one from the plane,
    both with the constant 1 of the bias as a coordinate. Infinite where the params do not separate.
    """
    norm = jnp.sqrt(jnp.sum(params["kernel"] ** 2) + params["bias"] ** 2)
    margin = jnp.min(y * score(params, x)) / norm
    radius = jnp.max(jnp.sum(x**2, 1) + 1)
    return jnp.where(margin > 0, radius / margin**2, jnp.inf)


def fit_adaline(
    x: jax.Array, y: jax.Array, *, epochs: int = 100, rate: float = 0.01, params: Params | None = None
) -> tuple[Params, jax.Array]:
    """The least mean squares rule, ``w <- w + rate (y - s) x`` with ``s = w . x + b``, example by example.

    Returns the params and the mean squared error of each epoch, ``[epochs]``. Labels may be any numbers.

    Raises:
        ValueError: the shapes are not ``[n, features]`` and ``[n]``.
    """
    if jnp.ndim(x) != 2 or jnp.shape(y) != jnp.shape(x)[:1]:
        raise ValueError(f"fit_adaline needs x [n, features] and y [n], got {describe(x)} and {describe(y)}")

    def example(params: Params, given: tuple[jax.Array, jax.Array]) -> tuple[Params, jax.Array]:
        now, label = given
        error = label - score(params, now)
        moved = {"kernel": params["kernel"] + rate * error * now, "bias": params["bias"] + rate * error}
        return moved, error**2

    def epoch(params: Params, _: None) -> tuple[Params, jax.Array]:
        params, squares = jax.lax.scan(example, params, (x, y.astype(x.dtype)))
        return params, jnp.mean(squares)

    return jax.lax.scan(epoch, params or _started(x), None, length=epochs)
