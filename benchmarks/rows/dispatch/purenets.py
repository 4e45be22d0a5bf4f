"""A layer of many parameters, in ``make_step`` and in a step by hand: ``apply`` is a pure function like any other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import purenets as pn
from benchmarks.loops import over_leaves, purenets, raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares
from purenets import optim


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState, which has a key and counts steps, one of params alone, and one of leaves."""
    weights = case.given["weights"]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return x * jnp.stack(list(params.values()))

    model = pn.layer(lambda key: weights, apply)
    whole = purenets.loop(model, optim.sgd(RATE), weights, lambda out, y: (out - y) ** 2)
    by_hand, again = (raw.loop(model.apply, weights, {}, optim.sgd(RATE), squares) for _ in range(2))
    loops = {"make_step": whole, "apply in a step by hand": by_hand, "flat leaves, jit": over_leaves(again)}
    return {form: repeated(loop, case.given["batch"]) for form, loop in loops.items()}
