"""Mechanic: a learning rate for any optimizer, by online learning on its direction (Cutkosky et al. 2023).

The base optimizer's updates are summed into a direction ``delta`` from the start ``x0``, and the point is
``x0 - sum(s) delta``. Each of ``n`` learners with forgetting ``beta_i = 1 - 0.1^i`` bets on its scale
``s_i``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import MechanicState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    Updates,
    check_leaves,
    check_trees,
    need_params,
)
from purenets.optim.combine import with_extra_args_support
from purenets.optim.numerics import narrow, safe_increment
from purenets.optim.trees import copied, dot, lowest_dtype, squared_norm

__all__ = ["MechanicState", "mechanize"]


def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: Scalar = 1e-2,
    eps: Scalar = 1e-8,
    s_init: Scalar = 1e-6,
    num_betas: int = 6,
) -> GradientTransformationExtraArgs:
    """The base optimizer, with a scale in front of it that is learned.

    Args:
        base_optimizer: the optimizer, which may have a schedule but needs no peak rate.
        weight_decay: a pull towards zero in the gradient that the learners see, relative to its norm.
        eps: added where something is divided by.
        s_init: the first wealth of the learners.
        num_betas: how many learners there are.
    """
    base_optimizer = with_extra_args_support(base_optimizer)

    def init(params: Params) -> MechanicState:
        dtype = lowest_dtype(params)
        return MechanicState(
            base_optimizer_state=base_optimizer.init(params),
            count=jnp.zeros([], jnp.int32),
            r=jnp.zeros([num_betas], dtype),
            m=jnp.zeros([num_betas], dtype),
            v=jnp.zeros([num_betas], dtype),
            s=jnp.full([num_betas], s_init, dtype),
            x0=copied(params),
        )

    def update(
        updates: Updates, state: MechanicState, params: Params = None, **extra: Any
    ) -> tuple[Updates, MechanicState]:
        need_params(params, "mechanize")
        check_trees(updates, params, "the parameters", "mechanize")
        check_leaves(updates, "mechanize", real=True)
        steps, base_state = base_optimizer.update(updates, state.base_optimizer_state, params, **extra)
        # The weights may have been replaced by pretrained ones since init: begin from those in use.
        start = jax.tree.map(lambda p, x: jnp.where(state.count == 0, p, x), params, state.x0)

        scale = jnp.sum(state.s)
        pull = weight_decay * scale * jnp.sqrt(squared_norm(updates)) / (jnp.sqrt(squared_norm(params)) + eps)
        gradient = jax.tree.map(lambda g, p: g + narrow(pull, p) * p, updates, params)
        before = jax.tree.map(lambda p, x: (x - p) / narrow(scale + eps, p), params, start)
        after = jax.tree.map(lambda d, u: d - u, before, steps)

        gain = dot(gradient, before)
        clipped = jnp.clip(jnp.broadcast_to(gain, state.m.shape), -state.m, state.m)
        betas = 1.0 - 0.1 ** jnp.arange(1, num_betas + 1, dtype=state.s.dtype)
        m = jnp.maximum(betas * state.m, jnp.abs(gain) + eps)
        v = betas**2 * state.v + gain**2
        r = betas * state.r + clipped * state.s
        wealth = (s_init / num_betas) * m + jnp.maximum(0.0, r)
        s = wealth / (jnp.sqrt(v) + eps)

        total = jnp.sum(s)
        moved = jax.tree.map(lambda x, d, p: (x - narrow(total, d) * d) - p, start, after, params)
        learned = [x.astype(y.dtype) for x, y in zip((r, m, v, s), state[2:6], strict=True)]
        return moved, MechanicState(base_state, safe_increment(state.count), *learned, start)

    return GradientTransformationExtraArgs(init, update)
