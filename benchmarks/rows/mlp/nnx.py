"""Flax nnx."""

from __future__ import annotations

from itertools import pairwise

import jax
import optax
from flax import nnx

from benchmarks.loops.nnx import cached_loop, fill, split_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import RATE, SIZES, epochs


class MLP(nnx.Module):
    """The network."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense_1, self.dense_2, self.dense_3 = (
            nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in pairwise(SIZES)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """To logits."""
        return self.dense_3(nnx.sigmoid(self.dense_2(nnx.sigmoid(self.dense_1(x)))))


def _model(case: Case) -> MLP:
    model = MLP(nnx.Rngs(0))
    fill(model, case.given["weights"])
    return model


def contestants(case: Case) -> dict[str, Call]:
    """Both of the fast forms."""
    return {
        "split and merge": epochs(split_loop(_model(case), optax.sgd(RATE)), case),
        "cached_partial": epochs(cached_loop(_model(case), optax.sgd(RATE)), case),
    }
