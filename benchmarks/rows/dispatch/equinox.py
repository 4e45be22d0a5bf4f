"""Equinox."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import repeated
from benchmarks.loops.equinox import filter_loop, flat_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares


class Leaves(eqx.Module):
    """Many parameters."""

    leaves: list[jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """All of them."""
        return x * jnp.stack(self.leaves)


def contestants(case: Case) -> dict[str, Call]:
    """A filtered step, and one over the leaves."""
    loops = {"filter_jit": filter_loop, "flat leaves, jit": flat_loop}

    def run(model: Any, x: jax.Array) -> jax.Array:
        return model(x)

    def made(loop: Any) -> Call:
        model = Leaves([jnp.copy(leaf) for leaf in case.given["weights"].values()])
        return repeated(loop(model, optax.sgd(RATE), run, squares), case.given["batch"])

    return {form: made(loop) for form, loop in loops.items()}
