"""Flax linen."""

from __future__ import annotations

import flax.linen as nn
import jax
import optax

from benchmarks.loops import linen
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import RATE, SIZES, epochs


class MLP(nn.Module):
    """The network."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """To logits."""
        for number, size in enumerate(SIZES[1:-1], 1):
            x = nn.sigmoid(nn.Dense(size, name=f"dense_{number}")(x))
        return nn.Dense(SIZES[-1], name=f"dense_{len(SIZES) - 1}")(x)


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState."""
    return {"TrainState, jit": epochs(linen.loop(MLP(), case.given["weights"], optax.sgd(RATE)), case)}
