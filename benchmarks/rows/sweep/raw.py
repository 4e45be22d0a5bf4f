"""JAX by hand: whole runs under ``vmap``, one wide network, and whole runs one after another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.loops.raw import cross_entropy
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp.raw import logits
from benchmarks.rows.sweep import batches, init, members, order


def _run(shuffle: bool, data: Any, key: jax.Array, rate: jax.Array) -> jax.Array:
    """The mean loss of one member."""
    xs, ys = data

    def step(params: Any, batch: Any) -> Any:
        if shuffle:
            batch = (xs.reshape(-1, xs.shape[-1])[batch], ys.ravel()[batch])
        loss = lambda params: cross_entropy(logits(params, batch[0]), batch[1])
        value, grads = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), value

    each = order(key, ys.size) if shuffle else (xs, ys)
    return jax.lax.scan(step, init(key), each)[1].mean()


def _affine(p: Any, x: jax.Array) -> jax.Array:
    """``[members, batch, n_in]``, or ``[batch, n_in]`` for all of them, to ``[members, batch, n_out]``."""
    kernel, bias = p["kernel"], p["bias"][:, None]
    if x.ndim == 3:
        return x @ kernel + bias
    joined = x @ jnp.moveaxis(kernel, 0, 1).reshape(kernel.shape[1], -1)
    return jnp.moveaxis(joined.reshape(len(x), *kernel.shape[::2]), 1, 0) + bias


def _wide(shuffle: bool, data: Any, keys: jax.Array, rates: jax.Array) -> jax.Array:
    """The mean losses of all members, whose first layer is one product where they share the batch."""
    xs, ys = data
    count = len(keys)

    def step(params: Any, batch: Any) -> Any:
        if shuffle:
            batch = (xs.reshape(-1, xs.shape[-1])[batch], ys.ravel()[batch])

        def loss(params: Any) -> Any:
            x = jax.nn.sigmoid(_affine(params["dense_1"], batch[0]))
            x = jax.nn.sigmoid(_affine(params["dense_2"], x))
            out = _affine(params["dense_3"], x)
            labels = batch[1] if shuffle else jnp.broadcast_to(batch[1], (count, len(batch[1])))
            picked = jnp.take_along_axis(jax.nn.log_softmax(out), labels[..., None], -1)
            each = -picked.mean((1, 2))
            return each.sum(), each

        (_, each), grads = jax.value_and_grad(loss, has_aux=True)(params)
        scaled = lambda p, g: p - rates.reshape(-1, *(1,) * (p.ndim - 1)) * g
        return jax.tree.map(scaled, params, grads), each

    if shuffle:
        each: Any = jnp.moveaxis(jax.vmap(lambda key: order(key, ys.size))(keys), 0, 1)
    else:
        each = (xs, ys)
    return jax.lax.scan(step, jax.vmap(init)(keys), each)[1].mean(0)


def contestants(case: Case) -> dict[str, Call]:
    """All three."""
    shuffle, data = case.given["shuffle"], batches(case)
    keys, rates = members(case)
    wide = jax.jit(lambda data, keys, rates: _wide(shuffle, data, keys, rates))
    one = jax.jit(lambda data, key, rate: _run(shuffle, data, key, rate))
    all_at_once = jax.jit(jax.vmap(lambda data, key, rate: _run(shuffle, data, key, rate), (None, 0, 0)))
    each = list(zip(keys, rates, strict=True))
    return {
        "vmap of the whole run": lambda: all_at_once(data, keys, rates),
        "one wide network": lambda: wide(data, keys, rates),
        "whole runs, one after another": lambda: [one(data, key, rate) for key, rate in each],
    }
