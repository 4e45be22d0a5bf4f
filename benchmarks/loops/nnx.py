"""Flax nnx in the two forms that its guide of performance gives for fast steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.loops import Loop
from benchmarks.loops.raw import cross_entropy

__all__ = ["cached_loop", "fill", "split_loop"]

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def fill(module: nnx.Module, weights: Any) -> None:
    """Set the params that the weights name by attribute, layer by layer; a list is indexed by number."""
    for name, value in weights.items():
        part = module[int(name)] if name.isdigit() else getattr(module, name)
        if isinstance(value, dict):
            fill(part, value)
        else:
            part[...] = jnp.array(value)


def split_loop(
    model: nnx.Module, optimizer: optax.GradientTransformation, loss: Loss = cross_entropy
) -> Loop:
    """``nnx.split`` once, and ``nnx.merge`` within a step of ``jax.jit``."""
    graph, state = nnx.split((model, nnx.Optimizer(model, optimizer, wrt=nnx.Param)))

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any) -> Any:
        model, optimizer = nnx.merge(graph, state)
        value, grads = nnx.value_and_grad(lambda model: loss(model(batch[0]), batch[1]))(model)
        optimizer.update(model, grads)
        return nnx.state((model, optimizer)), value

    return step, state


def cached_loop(
    model: nnx.Module, optimizer: optax.GradientTransformation, loss: Loss = cross_entropy
) -> Loop:
    """``nnx.cached_partial`` of a step of ``nnx.jit``."""

    @partial(nnx.jit, donate_argnums=(0, 1))
    def step(model: Any, optimizer: Any, batch: Any) -> Any:
        value, grads = nnx.value_and_grad(lambda model: loss(model(batch[0]), batch[1]))(model)
        optimizer.update(model, grads)
        return value

    cached = nnx.cached_partial(step, model, nnx.Optimizer(model, optimizer, wrt=nnx.Param))
    return lambda carry, batch: (carry, cached(batch)), None
