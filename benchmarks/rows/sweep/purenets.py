"""A jitted ``vmap`` of runs of ``pn.train``, and ``pn.sweep`` of them."""

from __future__ import annotations

from typing import Any

import jax

import purenets as pn
from benchmarks.protocol import Call, Case
from benchmarks.rows.sweep import BATCH, MODEL, members
from purenets import losses, optim


def contestants(case: Case) -> dict[str, Call]:
    """The sweep takes part where it keeps its program from call to call, since that of the others is kept too."""
    objective = pn.supervised(MODEL, losses.softmax_cross_entropy)
    data = (case.given["x"], case.given["y"])
    traces = 0

    def run(key: jax.Array, rate: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        optimizer = optim.sgd(rate)
        step = pn.make_step(objective, optimizer)
        ts = pn.start(MODEL, optimizer, key)
        shuffle = case.given["shuffle"]
        _, metrics = pn.train(step, ts, data, epochs=1, batch_size=BATCH, shuffle=shuffle, ahead=0)
        return metrics["loss"].mean()

    def swept() -> Any:
        over = {"rate": case.given["rates"]}
        return pn.sweep(run, over, seeds=case.given["seeds"], key=jax.random.key(0)).results

    keys, rates = members(case)
    mapped = jax.jit(jax.vmap(run))
    found: dict[str, Call] = {"vmap of pn.train": lambda: mapped(keys, rates)}
    swept()
    before = traces
    swept()
    return found | ({"pn.sweep": swept} if traces == before else {})
