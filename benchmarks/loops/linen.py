"""Flax linen: a ``TrainState``, with statistics where there are some, in a jitted and donated step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from benchmarks.loops import Loop
from benchmarks.loops.raw import cross_entropy

__all__ = ["loop"]


class _TrainState(train_state.TrainState):
    batch_stats: Any


def loop(
    model: nn.Module,
    weights: Any,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy,
    *,
    stats: Any = None,
) -> Loop:
    """A training step of a module whose params have the names of the weights."""
    params = jax.tree.map(jnp.copy, weights)
    if stats is None:
        ts: Any = train_state.TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)
    else:
        ts = _TrainState.create(apply_fn=model.apply, params=params, tx=optimizer, batch_stats=stats)

    @partial(jax.jit, donate_argnums=0)
    def step(ts: Any, batch: Any) -> Any:
        def objective(params: Any) -> Any:
            if stats is None:
                return loss(ts.apply_fn({"params": params}, batch[0]), batch[1]), {}
            variables = {"params": params, "batch_stats": ts.batch_stats}
            output, new = ts.apply_fn(variables, batch[0], mutable=["batch_stats"])
            return loss(output, batch[1]), new

        (value, new), grads = jax.value_and_grad(objective, has_aux=True)(ts.params)
        return ts.apply_gradients(grads=grads, **new), value

    return step, ts
