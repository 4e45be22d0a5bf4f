"""Equinox: ``filter_vmap`` of the step over an ensemble of modules, in a jitted step for all of them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.loops.raw import cross_entropy
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp.equinox import model
from benchmarks.rows.sweep import batches, init, members, order


def contestants(case: Case) -> dict[str, Call]:
    """One form."""
    shuffle = case.given["shuffle"]
    keys, rates = members(case)
    xs, ys = batches(case)
    ordered = list(zip(xs, ys, strict=True))
    start = eqx.filter_jit(eqx.filter_vmap(lambda key: model(init(key))))
    orders = jax.jit(lambda keys: list(jnp.moveaxis(jax.vmap(lambda key: order(key, ys.size))(keys), 0, 1)))
    x, y = case.given["x"], case.given["y"]

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, net: Any, total: jax.Array) -> Any:
        def one(net: Any, rate: jax.Array, chosen: jax.Array | None) -> Any:
            x, y = batch[:2] if chosen is None else (batch[0][chosen], batch[1][chosen])
            value, grads = eqx.filter_value_and_grad(lambda net: cross_entropy(jax.vmap(net)(x), y))(net)
            return eqx.apply_updates(net, jax.tree.map(lambda g: -rate * g, grads)), value

        chosen = batch[2] if shuffle else None
        net, value = eqx.filter_vmap(one, in_axes=(eqx.if_array(0), 0, 0 if shuffle else None))(
            net, rates, chosen
        )
        return net, total + value / len(ordered)

    def call() -> Any:
        net, total = start(keys), jnp.zeros(len(keys))
        for batch in [(x, y, chosen) for chosen in orders(keys)] if shuffle else ordered:
            net, total = step(batch, net, total)
        return total

    return {"filter_vmap of the step": call}
