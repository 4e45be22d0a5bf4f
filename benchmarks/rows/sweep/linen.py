"""Flax linen: a jitted step of a TrainState, one member after another, with the rate in the optimizer's state."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from benchmarks.loops.raw import cross_entropy
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp.linen import MLP
from benchmarks.rows.sweep import batches, init, members, order


def contestants(case: Case) -> dict[str, Call]:
    """One form."""
    model, tx = MLP(), optax.inject_hyperparams(optax.sgd)(learning_rate=1.0)
    keys, rates = members(case)
    xs, ys = batches(case)
    ordered = list(zip(xs, ys, strict=True))
    orders = jax.jit(lambda key: list(order(key, ys.size)))
    x, y = case.given["x"], case.given["y"]

    @jax.jit
    def start(key: jax.Array, rate: jax.Array) -> TrainState:
        ts = TrainState.create(apply_fn=model.apply, params=init(key), tx=tx)
        state = ts.opt_state._replace(hyperparams={"learning_rate": rate})
        return ts.replace(opt_state=state)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(ts: TrainState, total: jax.Array, batch: Any) -> Any:
        if case.given["shuffle"]:
            batch = (batch[0][batch[2]], batch[1][batch[2]])
        loss = lambda params: cross_entropy(ts.apply_fn({"params": params}, batch[0]), batch[1])
        value, grads = jax.value_and_grad(loss)(ts.params)
        return ts.apply_gradients(grads=grads), total + value / len(ordered)

    each = list(zip(keys, rates, strict=True))

    def call() -> Any:
        means = []
        for key, rate in each:
            ts, total = start(key, rate), jnp.zeros(())
            found = [(x, y, chosen) for chosen in orders(key)] if case.given["shuffle"] else ordered
            for batch in found:
                ts, total = step(ts, total, batch)
            means.append(total)
        return means

    return {"a jitted step, one after another": call}
