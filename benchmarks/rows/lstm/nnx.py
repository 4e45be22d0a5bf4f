"""Flax nnx."""

from __future__ import annotations

import optax
from flax import nnx

from benchmarks.loops import repeated
from benchmarks.loops.nnx import fill, split_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE, squares


def contestants(case: Case) -> dict[str, Call]:
    """Split and merge, the cheaper of the fast forms; the cell has one kernel for all gates."""
    size, rngs = case.given["size"], nnx.Rngs(0)
    cell = nnx.OptimizedLSTMCell(size, size, rngs=rngs)
    weights = case.given["weights"]
    fill(cell.dense_i, {"kernel": weights["kernel"]})
    fill(cell.dense_h, {"kernel": weights["recurrent_kernel"], "bias": weights["bias"]})
    loop = split_loop(nnx.RNN(cell, rngs=rngs), optax.sgd(RATE), squares)
    return {"OptimizedLSTMCell": repeated(loop, case.given["batch"])}
