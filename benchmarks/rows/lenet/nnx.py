"""Flax nnx."""

from __future__ import annotations

import jax
import optax
from flax import nnx

from benchmarks.loops import repeated
from benchmarks.loops.nnx import fill, split_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE


class LeNet(nnx.Module):
    """The network."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv_1 = nnx.Conv(1, 6, (5, 5), rngs=rngs)
        self.conv_2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.dense_1 = nnx.Linear(400, 120, rngs=rngs)
        self.dense_2 = nnx.Linear(120, 84, rngs=rngs)
        self.head = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """To logits."""
        x = nnx.max_pool(nnx.relu(self.conv_1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv_2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.dense_1(x.reshape(len(x), -1)))
        return self.head(nnx.relu(self.dense_2(x)))


def contestants(case: Case) -> dict[str, Call]:
    """Split and merge, the cheaper of the fast forms."""
    model = LeNet(nnx.Rngs(0))
    fill(model, case.given["weights"])
    return {"split and merge": repeated(split_loop(model, optax.adam(RATE)), case.given["batch"])}
