"""Prodigy: D-Adaptation that grows faster (Mishchenko and Defazio 2024, algorithm 4).

``estim_lr`` is a lower bound on the distance to a solution, from the inner product of the gradients with
the way made, over the sum of the gradients' sizes. Gradients count by the estimate that held when they
came.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import ProdigyState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
    check_rate,
    check_trees,
    leafwise,
    transform,
    zeros_like,
)
from purenets.optim.numerics import bias_of, safe_increment
from purenets.optim.trees import copied, dot, lowest_dtype, sum_abs

__all__ = ["ProdigyState", "prodigy"]


def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    safeguard_warmup: bool = False,
) -> GradientTransformationExtraArgs:
    """AdamW that estimates its own learning rate; the updates are to be added as they are.

    While all gradients have been zero there is nothing to estimate from, and the estimate stays.

    Args:
        learning_rate: a factor of the estimate; leave it at 1, or schedule it.
        betas: decays of the averages of the gradient and of its square.
        beta3: decay of the sums behind the estimate; the root of the second beta by default.
        eps: added to the root, times the estimate.
        estim_lr0: the first estimate, well below any distance that may be.
        estim_lr_coef: a factor of every new estimate.
        weight_decay: decoupled weight decay.
        safeguard_warmup: whether a warm-up in ``learning_rate`` stays out of the sum of the gradients.
    """
    check_rate(learning_rate)
    b1, b2 = betas
    keep = b2**0.5 if beta3 is None else beta3

    def init(params: Params) -> ProdigyState:
        dtype = lowest_dtype(params)
        return ProdigyState(
            exp_avg=zeros_like(params),
            exp_avg_sq=zeros_like(params),
            grad_sum=zeros_like(params),
            params0=copied(params),
            estim_lr=jnp.full([], estim_lr0, dtype),
            numerator_weighted=jnp.zeros([], dtype),
            count=jnp.zeros([], jnp.int32),
        )

    def update(updates: Updates, state: ProdigyState, params: Params) -> tuple[Updates, ProdigyState]:
        check_trees(updates, params, "the parameters", "prodigy")
        d, count = state.estim_lr, safe_increment(state.count)
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        rate = jnp.asarray(d * rate * (bias_of(b2, count) ** 0.5 / bias_of(b1, count)), d.dtype)
        way = jax.tree.map(lambda start, p: start - p, state.params0, params)
        numerator = keep * state.numerator_weighted + (d / estim_lr0) * rate * dot(updates, way)

        def gather(g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array) -> tuple[jax.Array, ...]:
            dg = d * g
            m, v = b1 * m + (1 - b1) * dg, b2 * v + (1 - b2) * dg * dg
            return g, m, v, keep * s + (d if safeguard_warmup else rate) * dg / estim_lr0

        _, exp_avg, exp_avg_sq, grad_sum = leafwise(
            gather, updates, state.exp_avg, state.exp_avg_sq, state.grad_sum, outputs=4, real=True
        )
        length = sum_abs(grad_sum)
        proven = jnp.where(length > 0, estim_lr_coef * numerator / jnp.where(length > 0, length, 1), 0)
        estimate = jnp.maximum(d, proven).astype(d.dtype)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            return (-weight_decay * rate * p - rate * m / (jnp.sqrt(v) + estimate * eps)).astype(g.dtype)

        return leafwise(rule, updates, exp_avg, exp_avg_sq, params), ProdigyState(
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            grad_sum=grad_sum,
            params0=state.params0,
            estim_lr=estimate,
            numerator_weighted=numerator.astype(d.dtype),
            count=count,
        )

    return transform(init, update, with_params=True)
