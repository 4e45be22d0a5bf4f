"""A layer of many parameters, in ``make_step`` and in a step by hand: ``apply`` is a pure function like any other."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import purenets as pn
from benchmarks.loops import Loop, purenets, raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares
from purenets import optim


def _flat(loop: Loop) -> Loop:
    """The step over the list of the leaves, which JAX takes apart faster than a dict."""
    step, carry = loop
    leaves, tree = jax.tree.flatten(carry)

    @partial(jax.jit, donate_argnums=0)
    def flat(leaves: Any, batch: Any) -> Any:
        carry, loss = step(jax.tree.unflatten(tree, leaves), batch)
        return jax.tree.leaves(carry), loss

    return flat, leaves


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState, which has a key and counts steps, and one of params alone over their leaves."""
    weights = case.given["weights"]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return x * jnp.stack(list(params.values()))

    model = pn.layer(lambda key: weights, apply)
    whole = purenets.loop(model, optim.sgd(RATE), weights, lambda out, y: (out - y) ** 2)
    by_hand = _flat(raw.loop(model.apply, weights, {}, optim.sgd(RATE), squares))
    loops = {"make_step": whole, "apply in a step by hand, flat leaves": by_hand}
    return {form: repeated(loop, case.given["batch"]) for form, loop in loops.items()}
