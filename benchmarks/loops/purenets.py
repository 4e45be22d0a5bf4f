"""The step of :func:`purenets.make_step`, jitted and donated."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import purenets as pn
from benchmarks.loops import Loop
from purenets import losses

__all__ = ["loop"]


def loop(
    model: pn.Layer,
    optimizer: optax.GradientTransformation,
    weights: Any,
    loss: Any = losses.softmax_cross_entropy,
) -> Loop:
    """A training step from these weights."""
    step = pn.make_step(pn.supervised(model, loss), optimizer)
    ts = pn.start(model, optimizer, jax.random.key(0))._replace(params=jax.tree.map(jnp.copy, weights))

    @partial(jax.jit, donate_argnums=0)
    def one(ts: pn.TrainState, batch: Any) -> tuple[pn.TrainState, jax.Array]:
        ts, metrics = step(ts, batch)
        return ts, metrics["loss"]

    return one, ts
