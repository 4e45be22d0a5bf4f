"""A jitted ``vmap`` of runs of ``pn.train``, and ``pn.sweep`` of them."""

from __future__ import annotations

from typing import Any

import jax

import purenets as pn
from benchmarks.protocol import Call, Case
from benchmarks.rows.sweep import BATCH, MODEL, members
from purenets import losses, optim


def contestants(case: Case) -> dict[str, Call]:
    """Both keep their programs from call to call."""
    objective = pn.supervised(MODEL, losses.softmax_cross_entropy)
    data = (case.given["x"], case.given["y"])

    def run(key: jax.Array, rate: jax.Array) -> jax.Array:
        optimizer = optim.sgd(rate)
        step = pn.make_step(objective, optimizer)
        ts = pn.start(MODEL, optimizer, key)
        shuffle = case.given["shuffle"]
        _, metrics = pn.train(step, ts, data, epochs=1, batch_size=BATCH, shuffle=shuffle, ahead=0)
        return metrics["loss"].mean()

    runs = pn.batch_runs(run)
    over = {"rate": case.given["rates"]}

    def swept() -> Any:
        return pn.sweep(runs, over, seeds=case.given["seeds"], key=jax.random.key(0)).results

    keys, rates = members(case)
    mapped = jax.jit(jax.vmap(run))
    return {"pn.sweep": swept, "vmap of pn.train": lambda: mapped(keys, rates)}
