"""The step that is written by hand: a pure loss of params and state, ``jax.value_and_grad`` and optax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import Loop

__all__ = ["cross_entropy", "loop"]


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over all labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def loop(
    run: Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]],
    weights: Any,
    state: Any,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy,
) -> Loop:
    """For ``run(params, state, x) -> (output, state)``."""

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Any, batch: Any) -> Any:
        params, state, opt_state = carry

        def objective(params: Any) -> Any:
            output, new = run(params, state, batch[0])
            return loss(output, batch[1]), new

        (value, state), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), value

    params, state = jax.tree.map(jnp.copy, (weights, state))
    return step, (params, state, optimizer.init(params))
