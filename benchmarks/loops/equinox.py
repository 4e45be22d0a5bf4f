"""Equinox: ``filter_jit`` as its users write it, and ``jax.jit`` over the leaves, which costs less a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import Loop, over_leaves
from benchmarks.loops.raw import cross_entropy

__all__ = ["fill", "filter_loop", "flat_loop"]

Loss = Callable[[jax.Array, jax.Array], jax.Array]
Run = Callable[[Any, jax.Array], jax.Array]


def fill(module: Any, weights: Any) -> Any:
    """The module with the params that the weights name by attribute; kernels are turned to have outputs first."""
    for name, value in weights.items():
        if isinstance(value, dict):
            new = fill(getattr(module, name), value)
        else:
            name = name if name == "bias" else "weight"
            new = jnp.array(value)
            new = jnp.moveaxis(new, (-1, -2), (0, 1)) if new.ndim > 1 else new
            new = new.reshape(getattr(module, name).shape)
        module = eqx.tree_at(lambda part, name=name: getattr(part, name), module, new)
    return module


def _step(optimizer: optax.GradientTransformation, run: Run, loss: Loss) -> Callable[..., Any]:
    def step(model: Any, opt_state: Any, batch: Any) -> Any:
        objective = lambda model: loss(run(model, batch[0]), batch[1])
        value, grads = eqx.filter_value_and_grad(objective)(model)
        updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), opt_state, value

    return step


def _batched(model: Any, x: jax.Array) -> jax.Array:
    return jax.vmap(model)(x)


def filter_loop(
    model: Any, optimizer: optax.GradientTransformation, run: Run = _batched, loss: Loss = cross_entropy
) -> Loop:
    """A donated step of ``eqx.filter_jit``; a module is of one example, and ``run`` maps it over a batch."""
    inner = _step(optimizer, run, loss)

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, carry: Any) -> Any:
        model, opt_state, value = inner(*carry, batch)
        return (model, opt_state), value

    return lambda carry, batch: step(batch, carry), (
        model,
        optimizer.init(eqx.filter(model, eqx.is_inexact_array)),
    )


def flat_loop(
    model: Any, optimizer: optax.GradientTransformation, run: Run = _batched, loss: Loss = cross_entropy
) -> Loop:
    """A donated step of ``jax.jit`` over the list of the module's arrays, put together again within."""
    inner = _step(optimizer, run, loss)
    carry = (model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
    arrays, static = eqx.partition(carry, eqx.is_array)

    def step(arrays: Any, batch: Any) -> Any:
        model, opt_state, value = inner(*eqx.combine(arrays, static), batch)
        return eqx.filter((model, opt_state), eqx.is_array), value

    return over_leaves((step, arrays))
