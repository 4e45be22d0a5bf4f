"""Flax linen."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import linen, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares


class Leaves(nn.Module):
    """Many parameters."""

    count: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """All of them."""
        leaves = [self.param(f"leaf_{i:04d}", nn.initializers.zeros, (4,)) for i in range(self.count)]
        return x * jnp.stack(leaves)


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState."""
    weights = case.given["weights"]
    loop = linen.loop(Leaves(len(weights)), weights, optax.sgd(RATE), squares)
    return {"TrainState, jit": repeated(loop, case.given["batch"])}
