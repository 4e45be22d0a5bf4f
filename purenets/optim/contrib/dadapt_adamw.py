"""D-Adaptation of AdamW: the learning rate is found from below (Defazio and Mishchenko 2023, algorithm 5).

``estim_lr`` is a lower bound on the distance from the start to a solution. It never falls, and is raised
whenever the gradients, weighted by their own sum, prove a larger distance.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import DAdaptAdamWState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
    check_rate,
    leafwise,
    transform,
    zeros_like,
)
from purenets.optim.numerics import bias_of, narrow, safe_increment
from purenets.optim.trees import lowest_dtype, sum_abs, total

__all__ = ["DAdaptAdamWState", "dadapt_adamw"]


def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> GradientTransformationExtraArgs:
    """AdamW that estimates its own learning rate; the updates are to be added as they are.

    While all gradients have been zero there is nothing to estimate from, and the estimate stays.

    Args:
        learning_rate: a factor of the estimate; leave it at 1, or schedule it.
        betas: decays of the averages of the gradient and of its square.
        eps: added to the root.
        estim_lr0: the first estimate, well below any distance that may be.
        weight_decay: decoupled weight decay.
    """
    check_rate(learning_rate)
    b1, b2 = betas

    def init(params: Params) -> DAdaptAdamWState:
        dtype = lowest_dtype(params)
        return DAdaptAdamWState(
            exp_avg=zeros_like(params),
            exp_avg_sq=zeros_like(params),
            grad_sum=zeros_like(params),
            estim_lr=jnp.full([], estim_lr0, dtype),
            numerator_weighted=jnp.zeros([], dtype),
            count=jnp.zeros([], jnp.int32),
        )

    def update(updates: Updates, state: DAdaptAdamWState, params: Params) -> tuple[Updates, DAdaptAdamWState]:
        d, keep = state.estim_lr, b2**0.5
        count = safe_increment(state.count)
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        rate = jnp.asarray(d * rate * (bias_of(b2, count) ** 0.5 / bias_of(b1, count)), d.dtype)

        def gains(g: jax.Array, s: jax.Array, v: jax.Array) -> jax.Array:
            return g * (s / (jnp.sqrt(v) + narrow(eps, v)))

        gained = total(leafwise(gains, updates, state.grad_sum, state.exp_avg_sq))

        def rule(
            g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array, p: jax.Array
        ) -> tuple[jax.Array, ...]:
            m = b1 * m + (1 - b1) * rate * g
            v = b2 * v + (1 - b2) * g * g
            s = keep * s + (1 - keep) * rate * g
            return -weight_decay * rate * p - m / (jnp.sqrt(v) + narrow(eps, v)), m, v, s

        updates, exp_avg, exp_avg_sq, grad_sum = leafwise(
            rule, updates, state.exp_avg, state.exp_avg_sq, state.grad_sum, params, outputs=4, real=True
        )
        numerator = keep * state.numerator_weighted + (1 - keep) * rate * gained
        length = sum_abs(grad_sum)
        proven = jnp.where(length > 0, numerator / ((1 - keep) * jnp.where(length > 0, length, 1)), 0)
        return updates, DAdaptAdamWState(
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            grad_sum=grad_sum,
            estim_lr=jnp.maximum(d, proven).astype(d.dtype),
            numerator_weighted=numerator.astype(d.dtype),
            count=count,
        )

    return transform(init, update, with_params=True)
