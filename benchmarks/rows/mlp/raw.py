"""JAX by hand: an epoch as one scan, and one jitted step at a time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import raw
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import BATCH, RATE, epochs, whole


def logits(params: Any, x: jax.Array) -> jax.Array:
    """The network."""
    for name in ("dense_1", "dense_2"):
        x = jax.nn.sigmoid(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["dense_3"]["kernel"] + params["dense_3"]["bias"]


def step(params: Any, batch: Any) -> Any:
    """Plain gradient descent."""
    loss = lambda params: raw.cross_entropy(logits(params, batch[0]), batch[1])
    value, grads = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value


def contestants(case: Case) -> dict[str, Call]:
    """What a careful person writes, and where there are two ways, both."""
    weights = case.given["weights"]
    steps = len(case.given["x"]) // BATCH

    def cut(data: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[: steps * BATCH].reshape(steps, BATCH, *leaf.shape[1:]), data)

    def in_order(carry: Any, data: Any, key: jax.Array) -> Any:
        return jax.lax.scan(step, carry, cut(data))

    def order(epoch: jax.Array, data: Any, key: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), len(data[0]))[: steps * BATCH]

    def gathered(carry: Any, data: Any, key: jax.Array) -> Any:
        (params, number), chosen = carry, order(carry[1], data, key)
        params, losses = jax.lax.scan(step, params, cut(jax.tree.map(lambda leaf: leaf[chosen], data)))
        return (params, number + 1), losses

    def by_step(carry: Any, data: Any, key: jax.Array) -> Any:
        (params, number), chosen = carry, order(carry[1], data, key)

        def body(params: Any, chosen: jax.Array) -> Any:
            return step(params, jax.tree.map(lambda leaf: leaf[chosen], data))

        params, losses = jax.lax.scan(body, params, chosen.reshape(steps, BATCH))
        return (params, number + 1), losses

    fresh = lambda: jax.tree.map(jnp.copy, weights)
    one = epochs(raw.loop(lambda p, s, x: (logits(p, x), s), weights, {}, optax.sgd(RATE)), case)
    if not case.given["shuffle"]:
        return {"scan": whole(in_order, fresh(), case), "a jitted step": one}
    return {
        "scan, gathered at once": whole(gathered, (fresh(), jnp.int32(0)), case),
        "scan, gathered by step": whole(by_step, (fresh(), jnp.int32(0)), case),
        "a jitted step": one,
    }
