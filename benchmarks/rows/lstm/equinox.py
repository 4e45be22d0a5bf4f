"""Equinox: the cell in a scan of one example, mapped over the batch."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import repeated
from benchmarks.loops.equinox import flat_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE, squares


def _run(cell: eqx.nn.LSTMCell, x: jax.Array) -> jax.Array:
    def one(x: jax.Array) -> jax.Array:
        def step(
            carry: tuple[jax.Array, jax.Array], now: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            carry = cell(now, carry)
            return carry, carry[0]

        zeros = jnp.zeros(cell.hidden_size)
        return jax.lax.scan(step, (zeros, zeros), x)[1]

    return jax.vmap(one)(x)


def contestants(case: Case) -> dict[str, Call]:
    """A step over the leaves."""
    size, weights = case.given["size"], case.given["weights"]
    cell = eqx.nn.LSTMCell(size, size, key=jax.random.key(0))
    arrays = [weights["kernel"].T, weights["recurrent_kernel"].T, jnp.copy(weights["bias"])]
    cell = eqx.tree_at(lambda cell: [cell.weight_ih, cell.weight_hh, cell.bias], cell, arrays)
    return {
        "flat leaves, jit": repeated(flat_loop(cell, optax.sgd(RATE), _run, squares), case.given["batch"])
    }
