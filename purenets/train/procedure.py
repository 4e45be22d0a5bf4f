"""What to try before a long training: is the loss right, can the model learn at all, which rate, which start.

All of it is pure and works on any step of :func:`purenets.make_step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.data.batches import count_examples
from purenets.layer import Key
from purenets.train.objective import Metrics, Objective
from purenets.train.run import train
from purenets.train.step import Step, TrainState

__all__ = ["RateTest", "curriculum_order", "initial_loss", "overfit", "rate_range_test", "restarts"]


def initial_loss(objective: Objective, ts: TrainState, batch: Any, classes: int) -> tuple[jax.Array, float]:
    """The loss before training, and ``ln classes``, what guessing evenly costs: the first should be near the second.

    Much more tells of initial weights that are too large, or of labels that do not fit the outputs.
    """
    loss, _ = objective(ts.params, ts.state, batch, None, False)
    return loss, math.log(classes)


def overfit(step: Step, ts: TrainState, batch: Any, *, steps: int = 300) -> tuple[TrainState, Metrics]:
    """Take ``steps`` steps on one small batch: a sound model and loss bring it to nearly nothing.

    Returns the new TrainState and the metrics of every step, ``[steps]``.
    """
    return jax.lax.scan(lambda now, _: step(now, batch), ts, None, length=steps)


class RateTest(NamedTuple):
    """What :func:`rate_range_test` found."""

    rates: jax.Array
    """``[rates]``, ascending."""
    losses: jax.Array
    """``[rates]``: the mean loss of the last quarter of each short training; infinite where it is not a number."""
    best: jax.Array
    """The rate of the least loss."""


def rate_range_test(
    step_of: Callable[[jax.Array], Step],
    start: Callable[[jax.Array, Key], TrainState],
    data: Any,
    key: Key,
    *,
    low: float = 1e-5,
    high: float = 10.0,
    rates: int = 25,
    steps: int = 60,
    batch_size: int = 32,
) -> RateTest:
    """Train shortly with each of many learning rates, side by side, from one start on the same batches.

    Args:
        step_of: the step of a learning rate, which is traced.
        start: the TrainState of a learning rate and a key.
        data: arrays ``[examples, ...]``.
        key: for the start.
        low: the least rate.
        high: the largest; between them they are spread evenly over their logarithms.
        rates: how many.
        steps: of each training, as many epochs as that takes.
        batch_size: examples a step.

    Raises:
        ValueError: the rates are not ``0 < low < high``, or the data do not fill a batch.
    """
    if not 0 < low < high:
        raise ValueError(f"rate_range_test needs rates 0 < low < high, got {low} and {high}")
    epochs = -(-steps // (count_examples(data, batch_size) // batch_size))
    values = jnp.exp(jnp.linspace(math.log(low), math.log(high), rates))
    keys = jax.random.key_data(key)

    def one(rate: jax.Array) -> jax.Array:
        again = jax.random.wrap_key_data(keys, impl=jax.random.key_impl(key))
        _, metrics = train(
            step_of(rate), start(rate, again), data, epochs=epochs, batch_size=batch_size, ahead=0
        )
        losses = metrics["loss"].ravel()[:steps]
        mean = losses[-max(1, steps // 4) :].mean()
        return jnp.where(jnp.isfinite(mean), mean, jnp.inf)

    losses = jax.jit(jax.vmap(one))(values)
    return RateTest(values, losses, values[jnp.argmin(losses)])


def restarts(run: Callable[[Key], tuple[Any, jax.Array]], key: Key, count: int) -> tuple[Any, jax.Array]:
    """Train from ``count`` starts at once and keep the best: ``run(key) -> (result, loss)``.

    Returns the result of the least loss and the losses of all, ``[count]``; NaN never is the least.
    """
    results, losses = jax.jit(jax.vmap(run))(jax.random.split(key, count))
    best = jnp.nanargmin(losses)
    return jax.tree.map(lambda leaf: leaf[best], results), losses


def curriculum_order(difficulty: jax.Array, fraction: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The examples from easy to hard, ``[n]``, and how many of them to train on (Bengio et al. 2009).

    ``fraction`` rises to 1 as training goes on; at least one example counts.
    """
    order = jnp.argsort(difficulty, stable=True)
    count = jnp.clip(jnp.ceil(jnp.asarray(fraction) * len(difficulty)), 1, len(difficulty))
    return order, count.astype(jnp.int32)
