"""Haiku."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import haiku, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step; not for 1,000 leaves, which take long to compile and are the same dicts as by hand."""
    weights, batch = case.given["weights"], case.given["batch"]
    if len(weights) > 100:
        return {}

    def net(x: jax.Array) -> jax.Array:
        return x * jnp.stack([hk.get_parameter(name, (4,), init=jnp.zeros) for name in weights])

    loop = haiku.loop(net, {"~": weights}, optax.sgd(RATE), squares, sample=batch[0])
    return {"jit": repeated(loop, batch)}
