"""Flax nnx."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.loops import repeated
from benchmarks.loops.nnx import cached_loop, split_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares


class Leaves(nnx.Module):
    """Many parameters."""

    def __init__(self, weights: Any) -> None:
        self.leaves = nnx.List([nnx.Param(jnp.copy(leaf)) for leaf in weights.values()])

    def __call__(self, x: jax.Array) -> jax.Array:
        """All of them."""
        return x * jnp.stack([leaf[...] for leaf in self.leaves])


def contestants(case: Case) -> dict[str, Call]:
    """Both of the fast forms."""
    loops = {"split and merge": split_loop, "cached_partial": cached_loop}
    return {
        form: repeated(loop(Leaves(case.given["weights"]), optax.sgd(RATE), squares), case.given["batch"])
        for form, loop in loops.items()
    }
