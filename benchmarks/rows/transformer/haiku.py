"""Haiku; its loop is ``hk.experimental.layer_stack``."""

from __future__ import annotations

from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import haiku, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import EPS, Sizes, form, matrices, unstacked

_STACK = "__layer_stack_no_per_layer"


def _block(sizes: Sizes, x: jax.Array) -> jax.Array:
    time, head = x.shape[1], sizes.dim // sizes.heads
    norm = partial(hk.LayerNorm, -1, True, True, eps=EPS)
    init = hk.initializers.VarianceScaling()
    mask = jnp.tril(jnp.ones((1, 1, time, time), bool))
    y = norm(name="attention_norm")(x)
    x = x + hk.MultiHeadAttention(sizes.heads, head, w_init=init, name="attention")(y, y, y, mask=mask)
    y = norm(name="feed_forward_norm")(x)
    y = jax.nn.gelu(hk.Linear(4 * sizes.dim, name="up")(y))
    return x + hk.Linear(sizes.dim, name="down")(y)


def _net(sizes: Sizes, scan: bool, tokens: jax.Array) -> jax.Array:
    embed = hk.Embed(sizes.vocabulary, sizes.dim, name="embed")
    x = embed(tokens) + hk.Embed(sizes.time, sizes.dim, name="positions")(jnp.arange(sizes.time))
    if scan:
        x = hk.experimental.layer_stack(sizes.depth)(partial(_block, sizes))(x)
    else:
        for number in range(sizes.depth):
            with hk.experimental.name_scope(f"block_{number}"):
                x = _block(sizes, x)
    return hk.LayerNorm(-1, True, True, eps=EPS, name="norm")(x) @ embed.embeddings.T


def _names(block: Any) -> Any:
    block = matrices(block)
    attention = {"linear" if name == "out" else name: part for name, part in block["attention"].items()}
    ends = {name: part for name, part in block.items() if name != "feed_forward"}
    return ends | block["feed_forward"] | {"attention": attention}


def contestants(case: Case) -> dict[str, Call]:
    """Each form in a jitted step."""
    weights, sizes, batch = case.given["weights"], case.given["sizes"], case.given["batch"]
    ends = {name: {"embeddings": weights[name]["embedding"]} for name in ("embed", "positions")}
    ends |= {"norm": weights["norm"]}

    def made(scan: bool) -> Call:
        if scan:
            inner = {f"{_STACK}/{name}": part for name, part in _names(weights["blocks"]).items()}
        else:
            inner = {f"block_{number}": _names(block) for number, block in enumerate(unstacked(weights))}
        optimizer = case.given["optimizer"](optax)
        params = haiku.named(ends | inner)
        return repeated(haiku.loop(partial(_net, sizes, scan), params, optimizer, sample=batch[0]), batch)

    return {form(scan): made(scan) for scan in case.given["forms"]}
