"""Flax linen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax

from benchmarks.loops import linen, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE, squares


def gates(weights: Any) -> dict[str, Any]:
    """The weights of Flax's cell: one kernel for each gate of inputs and of units, the bias with the latter."""
    found: dict[str, Any] = {}
    cut = {name: jnp.split(value, 4, -1) for name, value in weights.items()}
    for number, gate in enumerate("ifgo"):
        found[f"i{gate}"] = {"kernel": cut["kernel"][number]}
        found[f"h{gate}"] = {"kernel": cut["recurrent_kernel"][number], "bias": cut["bias"][number]}
    return found


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState."""
    model = nn.RNN(nn.OptimizedLSTMCell(case.given["size"]))
    loop = linen.loop(model, {"cell": gates(case.given["weights"])}, optax.sgd(RATE), squares)
    return {"OptimizedLSTMCell": repeated(loop, case.given["batch"])}
