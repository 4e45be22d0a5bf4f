"""Haiku."""

from __future__ import annotations

import haiku as hk
import jax
import optax

from benchmarks.loops import haiku, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE


def net(x: jax.Array) -> jax.Array:
    """To logits."""
    x = jax.nn.relu(hk.Conv2D(6, 5, name="conv_1")(x))
    x = hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID")
    x = jax.nn.relu(hk.Conv2D(16, 5, padding="VALID", name="conv_2")(x))
    x = hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID")
    x = jax.nn.relu(hk.Linear(120, name="dense_1")(x.reshape(len(x), -1)))
    x = jax.nn.relu(hk.Linear(84, name="dense_2")(x))
    return hk.Linear(10, name="head")(x)


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step."""
    batch = case.given["batch"]
    loop = haiku.loop(net, haiku.named(case.given["weights"]), optax.adam(RATE), sample=batch[0])
    return {"jit": repeated(loop, batch)}
