"""Haiku: its LSTM adds 1 to the forget gate and has the gates in the order i, g, f, o."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import haiku, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE, squares


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step."""
    batch, size, weights = case.given["batch"], case.given["size"], case.given["weights"]

    def net(x: jax.Array) -> jax.Array:
        core = hk.LSTM(size, name="lstm")
        return hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)[0]

    def turned(value: jax.Array, forget: float = 0.0) -> jax.Array:
        i, f, g, o = jnp.split(value, 4, -1)
        return jnp.concatenate([i, g, f - forget, o], -1)

    kernel = jnp.concatenate([weights["kernel"], weights["recurrent_kernel"]])
    params = {"lstm/linear": {"w": turned(kernel), "b": turned(weights["bias"], 1.0)}}
    loop = haiku.loop(net, params, optax.sgd(RATE), squares, sample=batch[0])
    return {"dynamic_unroll": repeated(loop, batch)}
