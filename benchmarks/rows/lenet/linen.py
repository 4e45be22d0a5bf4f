"""Flax linen."""

from __future__ import annotations

import flax.linen as nn
import jax
import optax

from benchmarks.loops import linen, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE


class LeNet(nn.Module):
    """The network."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """To logits."""
        x = nn.max_pool(nn.relu(nn.Conv(6, (5, 5), name="conv_1")(x)), (2, 2), (2, 2))
        x = nn.max_pool(nn.relu(nn.Conv(16, (5, 5), padding="VALID", name="conv_2")(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(120, name="dense_1")(x))
        x = nn.relu(nn.Dense(84, name="dense_2")(x))
        return nn.Dense(10, name="head")(x)


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState."""
    loop = linen.loop(LeNet(), case.given["weights"], optax.adam(RATE))
    return {"TrainState, jit": repeated(loop, case.given["batch"])}
