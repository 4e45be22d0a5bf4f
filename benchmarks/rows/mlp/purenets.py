"""A jitted and donated ``pn.train`` of one epoch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import purenets as pn
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import BATCH, RATE, SIZES, whole
from purenets import losses, models, optim


def contestants(case: Case) -> dict[str, Call]:
    """The loop of the library."""
    model, optimizer = models.mlp(SIZES, activation=jax.nn.sigmoid), optim.sgd(RATE)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optimizer)
    params = jax.tree.map(jnp.copy, case.given["weights"])
    ts = pn.start(model, optimizer, jax.random.key(0))._replace(params=params)

    def epoch(ts: pn.TrainState, data: Any, key: jax.Array) -> tuple[pn.TrainState, jax.Array]:
        shuffle = case.given["shuffle"]
        ts, metrics = pn.train(step, ts, data, epochs=1, batch_size=BATCH, shuffle=shuffle)
        return ts, metrics["loss"]

    return {"train": whole(epoch, ts, case)}
