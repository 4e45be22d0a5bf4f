"""A layer of many parameters in ``make_step``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import purenets as pn
from benchmarks.loops import purenets, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE
from purenets import optim


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState."""
    weights = case.given["weights"]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return x * jnp.stack(list(params.values()))

    model = pn.layer(lambda key: weights, apply)
    loop = purenets.loop(model, optim.sgd(RATE), weights, lambda out, y: (out - y) ** 2)
    return {"make_step": repeated(loop, case.given["batch"])}
