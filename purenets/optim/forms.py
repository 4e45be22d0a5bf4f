"""Forms of the classical rules that differ from the usual ones: where the rate, epsilon and the square stand.

*Momentum* comes in three forms, with velocity ``v`` and rate ``eta``::

    A   v <- decay v - eta g        p <- p + v
    B   v <- decay v + eta g        p <- p - v
    C   v <- decay v + g            p <- p - eta v

A and B walk the same path. C does so only while the rate is constant: in A and B an old gradient keeps the
rate of its own step. *Nesterov's* method in form B takes the gradient at :func:`look_ahead`.

*Scalar accumulators* measure the whole gradient by one number, ``g . g`` over all leaves, where the usual
rules have a number for every entry. *Biased* averages start at zero and are not corrected, so that the first
step of Adam is ``(1 - b1) / sqrt(1 - b2)`` times the rate, 3.162 times with the usual decays.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
    check_rate,
    full_like,
    leafwise,
    no_state,
    transform,
    zeros_like,
)
from purenets.optim.combine import chain, scale, scale_by_learning_rate
from purenets.optim.momentum import trace
from purenets.optim.numerics import abs_sq, narrow, safe_increment, sum_of_squares
from purenets.optim.states import ScaleByAdamState, ScaleByRssState

__all__ = [
    "MeanSquareState",
    "ScalarMomentsState",
    "ScalarSquareState",
    "adagrad_by_means",
    "adagrad_eps_outside",
    "adagrad_norm",
    "adam_biased",
    "adam_norm",
    "look_ahead",
    "momentum",
    "normalize_gradient",
    "rmsprop_norm",
]


def momentum(
    learning_rate: ScalarOrSchedule, decay: Scalar = 0.9, *, form: Literal["A", "B", "C"] = "C"
) -> GradientTransformationExtraArgs:
    """Gradient descent with momentum in one of three forms, see above (Polyak 1964).

    The velocity is the ``trace`` in the state. Form C is ``sgd(learning_rate, momentum=decay)``.

    Args:
        learning_rate: the rate.
        decay: how much of the velocity stays.
        form: what the velocity carries: ``-rate g``, ``rate g`` or ``g``.

    Raises:
        ValueError: an unknown form.
    """
    if form == "A":
        return chain(scale_by_learning_rate(learning_rate), trace(decay))
    if form == "B":
        return chain(scale_by_learning_rate(learning_rate, flip_sign=False), trace(decay), scale(-1.0))
    if form == "C":
        return chain(trace(decay), scale_by_learning_rate(learning_rate))
    raise ValueError(f"the form of momentum is 'A', 'B' or 'C', got {form!r}")


def look_ahead(params: Params, velocity: Updates, decay: Scalar) -> Params:
    """``p - decay v``: where Nesterov's method takes the gradient, with the velocity of form B.

    With a constant rate these points are the parameters of ``sgd(rate, momentum=decay, nesterov=True)``.
    """

    def rule(p: jax.Array, v: jax.Array) -> jax.Array:
        return p - decay * v

    return leafwise(rule, params, velocity)


def normalize_gradient(length: Scalar = 1.0) -> GradientTransformationExtraArgs:
    """The whole gradient at one length, ``length g / |g|``; a zero gradient stays zero.

    There is no threshold: unlike clipping this lengthens small gradients too.
    """

    def update(updates: Updates, state: OptState) -> tuple[Updates, OptState]:
        norm = jnp.sqrt(sum_of_squares(updates))
        factor = jnp.where(norm > 0, length / norm, 0.0)

        def rule(g: jax.Array) -> jax.Array:
            return g * narrow(factor, g)

        return leafwise(rule, updates), state

    return transform(no_state, update)


class MeanSquareState(NamedTuple):
    """The number of updates made, and the mean of the squared gradients so far."""

    count: jax.Array  # type: ignore[assignment]
    mean_square: Updates


def adagrad_by_means(learning_rate: Scalar) -> GradientTransformationExtraArgs:
    """AdaGrad as derived: the rate ``eta / sqrt(t + 1)`` over the root *mean* of the squares, ``t = 0, 1, …``

    The two factors ``sqrt(t + 1)`` cancel, so this is ``adagrad(eta, 0.0, eps=0.0)``.
    """
    check_rate(learning_rate)

    def init(params: Params) -> MeanSquareState:
        return MeanSquareState(count=jnp.zeros([], jnp.int32), mean_square=zeros_like(params))

    def update(updates: Updates, state: MeanSquareState) -> tuple[Updates, MeanSquareState]:
        count = safe_increment(state.count)
        rate = -learning_rate * count**-0.5

        def rule(g: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
            mean = mean + (abs_sq(g) - mean) / count
            return jnp.where(mean > 0, narrow(rate, g) * g / jnp.sqrt(mean), jnp.zeros_like(g)), mean

        updates, means = leafwise(rule, updates, state.mean_square, outputs=2)
        return updates, MeanSquareState(count, means)

    return transform(init, update)


def adagrad_eps_outside(
    learning_rate: ScalarOrSchedule, eps: Scalar = 1e-7, initial_accumulator_value: Scalar = 0.0
) -> GradientTransformationExtraArgs:
    """AdaGrad with ``eps`` added to the root, ``-rate g / (sqrt(sum) + eps)``, as it is usually coded."""

    def init(params: Params) -> ScaleByRssState:
        return ScaleByRssState(sum_of_squares=full_like(params, initial_accumulator_value))

    def update(updates: Updates, state: ScaleByRssState) -> tuple[Updates, ScaleByRssState]:
        def rule(g: jax.Array, total: jax.Array) -> tuple[jax.Array, jax.Array]:
            total = total + abs_sq(g)
            return g / (jnp.sqrt(total) + eps), total

        updates, sums = leafwise(rule, updates, state.sum_of_squares, outputs=2)
        return updates, ScaleByRssState(sum_of_squares=sums)

    return chain(transform(init, update), scale_by_learning_rate(learning_rate))


def adam_biased(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-7,
    *,
    eps_in_sqrt: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam without bias correction, ``-rate m / (sqrt(v) + eps)``; its first step is 3.162 times the rate.

    Args:
        learning_rate: the rate.
        b1: decay of the average of the gradient.
        b2: decay of the average of its square.
        eps: added to the root, or under it.
        eps_in_sqrt: whether ``eps`` is under the root.
    """

    def init(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros_like(params), nu=zeros_like(params))

    def update(updates: Updates, state: ScaleByAdamState) -> tuple[Updates, ScaleByAdamState]:
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = (1 - b1) * g + b1 * m, (1 - b2) * abs_sq(g) + b2 * v
            return m / (jnp.sqrt(v + eps) if eps_in_sqrt else jnp.sqrt(v) + eps), m, v

        updates, mu, nu = leafwise(rule, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count=safe_increment(state.count), mu=mu, nu=nu)

    return chain(transform(init, update), scale_by_learning_rate(learning_rate))


class ScalarSquareState(NamedTuple):
    """One number: the sum or the average of ``g . g``."""

    square: jax.Array


def _over_scalar_root(updates: Updates, square: jax.Array) -> Updates:
    def rule(g: jax.Array) -> jax.Array:
        return g * narrow(jnp.where(square > 0, jax.lax.rsqrt(square), 0.0), g)

    return leafwise(rule, updates)


def _zero_square(params: Params) -> jax.Array:
    """Zero in the dtype of a sum of squares of these leaves, whatever mixture they are."""
    return jnp.zeros([], jax.eval_shape(sum_of_squares, params).dtype)


def _by_scalar(step: Any) -> GradientTransformationExtraArgs:
    def init(params: Params) -> ScalarSquareState:
        return ScalarSquareState(square=_zero_square(params))

    def update(updates: Updates, state: ScalarSquareState) -> tuple[Updates, ScalarSquareState]:
        square = step(state.square, sum_of_squares(updates)).astype(state.square.dtype)
        return _over_scalar_root(updates, square), ScalarSquareState(square)

    return transform(init, update)


def adagrad_norm(learning_rate: ScalarOrSchedule) -> GradientTransformationExtraArgs:
    """AdaGrad with one accumulator for all: ``u <- u + g . g``, ``-rate g / sqrt(u)``; 0 while ``u`` is 0."""
    return chain(_by_scalar(lambda u, square: u + square), scale_by_learning_rate(learning_rate))


def rmsprop_norm(learning_rate: ScalarOrSchedule, decay: Scalar = 0.9) -> GradientTransformationExtraArgs:
    """RMSProp with one average for all: ``u <- decay u + (1 - decay) g . g``, ``-rate g / sqrt(u)``."""
    return chain(
        _by_scalar(lambda u, square: decay * u + (1 - decay) * square), scale_by_learning_rate(learning_rate)
    )


class ScalarMomentsState(NamedTuple):
    """The average of the gradient, and one number, the average of ``g . g``."""

    mu: Updates
    nu: jax.Array


def adam_norm(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999
) -> GradientTransformationExtraArgs:
    """Biased Adam with one second average for all: ``-rate m / sqrt(u)``, ``u <- b2 u + (1 - b2) g . g``.

    Args:
        learning_rate: the rate.
        b1: decay of the average of the gradient.
        b2: decay of the average of ``g . g``; sources that number the averages in the order ``u, m`` call
            this one rho1.
    """

    def init(params: Params) -> ScalarMomentsState:
        return ScalarMomentsState(mu=zeros_like(params), nu=_zero_square(params))

    def update(updates: Updates, state: ScalarMomentsState) -> tuple[Updates, ScalarMomentsState]:
        nu = (b2 * state.nu + (1 - b2) * sum_of_squares(updates)).astype(state.nu.dtype)

        def rule(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
            m = (1 - b1) * g + b1 * m
            return m, m

        updates, mu = leafwise(rule, updates, state.mu, outputs=2)
        return _over_scalar_root(updates, nu), ScalarMomentsState(mu, nu)

    return chain(transform(init, update), scale_by_learning_rate(learning_rate))
