"""Haiku."""

from __future__ import annotations

import haiku as hk
import jax
import optax

from benchmarks.loops import haiku
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import RATE, SIZES, epochs


def net(x: jax.Array) -> jax.Array:
    """To logits."""
    for number, size in enumerate(SIZES[1:-1], 1):
        x = jax.nn.sigmoid(hk.Linear(size, name=f"dense_{number}")(x))
    return hk.Linear(SIZES[-1], name=f"dense_{len(SIZES) - 1}")(x)


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step."""
    weights = haiku.named(case.given["weights"])
    return {"jit": epochs(haiku.loop(net, weights, optax.sgd(RATE), sample=case.given["x"][:1]), case)}
