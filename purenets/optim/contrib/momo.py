"""MoMo: the step is capped by what the loss has left to fall (Schaipp et al. 2024, algorithms 1 and 2).

With averages ``f`` of the loss, ``d`` of the gradient and ``gamma`` of ``<g, x>``, the model of the loss
around ``x`` falls to its lower bound ``lb`` at ``tau = (f - lb - gamma + <d, x>) / |d|^2``; the step is the
smaller of ``tau`` and the learning rate. Weight decay is a proximal step, ``x <- (x - tau d) / (1 + rate
decay)`` (their lemma 3.1, equation 16); optax divides only ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import MomoAdamState, MomoState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
    check_rate,
    check_trees,
    leafwise,
    need_params,
    zeros_like,
)
from purenets.optim.numerics import bias_of, narrow, safe_increment
from purenets.optim.trees import dot, lowest_dtype

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam"]


def _need(value: Any, params: Params, updates: Updates, who: str) -> None:
    need_params(params, who)
    check_trees(updates, params, "the parameters", who)
    if value is None:
        raise ValueError(f"{who} needs the loss: call update(gradients, state, params, value=loss)")


def _step(
    rate: Any,
    decay: Any,
    room: jax.Array,
    inner: jax.Array,
    norm: jax.Array,
    lb: jax.Array,
    lower_bound: Scalar,
    adapt: bool,
    share: Any,
) -> tuple[jax.Array, jax.Array]:
    """How far to go, and the new lower bound; ``room`` is ``f - gamma``, ``share`` the averages' weight."""
    grown = 1 + rate * decay
    if adapt:
        cap = grown * room + inner
        lower = jnp.maximum(cap / (2 * grown * share), lower_bound)
        lb = jnp.where(cap < grown * share * lb, lower, lb)
    # Where the direction is zero there is nowhere to go.
    still = norm <= jnp.finfo(float).eps
    reach = jnp.maximum(grown * (room - share * lb) + inner, 0.0) / jnp.where(still, 1, norm)
    tau = jnp.minimum(rate / share, jnp.where(still, 0.0, reach))
    if adapt:
        lb = jnp.maximum((room + inner - 0.5 * tau * norm) / share, lower_bound)
    return tau, lb


def _moved(tau: jax.Array, rate: Any, decay: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The proximal update ``(x - tau d) / (1 + rate decay) - x`` of a direction and a parameter."""
    return lambda d, p: -(narrow(tau, p) * d + narrow(rate * decay, p) * p) / narrow(1 + rate * decay, p)


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """Momentum with a step that the loss bounds; ``update`` needs ``params`` and ``value=loss``.

    Args:
        learning_rate: the longest step, a number or a schedule.
        beta: decay of the averages.
        lower_bound: a lower bound of the loss.
        weight_decay: proximal weight decay.
        adapt_lower_bound: whether to estimate the bound, from ``lower_bound`` up.

    Raises:
        ValueError: (in ``update``) the parameters or the loss are missing.
    """
    check_rate(learning_rate, bound=True)

    def init(params: Params) -> MomoState:
        dtype = lowest_dtype(params)
        return MomoState(
            exp_avg=zeros_like(params),
            barf=jnp.zeros([], dtype),
            gamma=jnp.zeros([], dtype),
            lb=jnp.full([], lower_bound, dtype),
            count=jnp.zeros([], jnp.int32),
        )

    def update(
        updates: Updates, state: MomoState, params: Params = None, *, value: Any = None, **_: Any
    ) -> tuple[Updates, MomoState]:
        _need(value, params, updates, "momo")
        dtype = state.barf.dtype
        # The averages begin with the first loss and gradient and so hold all their weight at once.
        keep = jnp.where(state.count == 0, 0.0, beta)
        barf = keep * state.barf + (1 - keep) * jnp.asarray(value, dtype)
        gamma = keep * state.gamma + (1 - keep) * dot(updates, params)

        def average(g: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
            d = narrow(keep, d) * d + narrow(1 - keep, g) * g
            return d, d

        direction, exp_avg = leafwise(average, updates, state.exp_avg, outputs=2, real=True)
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        inner, norm = dot(direction, params), dot(direction, direction)
        tau, lb = _step(
            rate, weight_decay, barf - gamma, inner, norm, state.lb, lower_bound, adapt_lower_bound, 1
        )
        return jax.tree.map(_moved(tau, rate, weight_decay), direction, params), MomoState(
            exp_avg=exp_avg,
            barf=barf.astype(dtype),
            gamma=gamma.astype(dtype),
            lb=lb.astype(dtype),
            count=safe_increment(state.count),
        )

    return GradientTransformationExtraArgs(init, update)


def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam with a step that the loss bounds; ``update`` needs ``params`` and ``value=loss``.

    Args:
        learning_rate: the longest step, a number or a schedule.
        b1: decay of the averages of loss and gradient.
        b2: decay of the average of the square.
        eps: added to the root.
        lower_bound: a lower bound of the loss.
        weight_decay: proximal weight decay.
        adapt_lower_bound: whether to estimate the bound, from ``lower_bound`` up.

    Raises:
        ValueError: (in ``update``) the parameters or the loss are missing.
    """
    check_rate(learning_rate, bound=True)

    def init(params: Params) -> MomoAdamState:
        dtype = lowest_dtype(params)
        return MomoAdamState(
            exp_avg=zeros_like(params),
            exp_avg_sq=zeros_like(params),
            barf=jnp.zeros([], dtype),
            gamma=jnp.zeros([], dtype),
            lb=jnp.full([], lower_bound, dtype),
            count=jnp.zeros([], jnp.int32),
        )

    def update(
        updates: Updates, state: MomoAdamState, params: Params = None, *, value: Any = None, **_: Any
    ) -> tuple[Updates, MomoAdamState]:
        _need(value, params, updates, "momo_adam")
        dtype, count = state.barf.dtype, safe_increment(state.count)
        c1, c2 = bias_of(b1, count).astype(dtype), bias_of(b2, count).astype(dtype)
        barf = b1 * state.barf + (1 - b1) * jnp.asarray(value, dtype)
        gamma = b1 * state.gamma + (1 - b1) * dot(updates, params)

        def average(g: jax.Array, d: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            d, v = b1 * d + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            return d / (narrow(eps, v) + jnp.sqrt(v / c2)), d, v

        direction, exp_avg, exp_avg_sq = leafwise(
            average, updates, state.exp_avg, state.exp_avg_sq, outputs=3, real=True
        )
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        inner, norm = dot(exp_avg, params), dot(exp_avg, direction)
        tau, lb = _step(
            rate, weight_decay, barf - gamma, inner, norm, state.lb, lower_bound, adapt_lower_bound, c1
        )
        return jax.tree.map(_moved(tau, rate, weight_decay), direction, params), MomoAdamState(
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            barf=barf.astype(dtype),
            gamma=gamma.astype(dtype),
            lb=lb.astype(dtype),
            count=count,
        )

    return GradientTransformationExtraArgs(init, update)
