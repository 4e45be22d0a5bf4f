"""Equinox: modules of one sequence; its loop is ``lax.scan`` over the arrays of stacked blocks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import repeated
from benchmarks.loops.equinox import fill, flat_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import EPS, Sizes, form, matrices, unstacked


class FeedForward(eqx.Module):
    """Two layers."""

    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, dim: int, key: jax.Array) -> None:
        self.up, self.down = eqx.nn.Linear(dim, 4 * dim, key=key), eqx.nn.Linear(4 * dim, dim, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """On one position."""
        return self.down(jax.nn.gelu(self.up(x)))


class Block(eqx.Module):
    """Attention and the feed-forward network."""

    attention_norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    feed_forward_norm: eqx.nn.LayerNorm
    feed_forward: FeedForward

    def __init__(self, sizes: Sizes, key: jax.Array) -> None:
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        self.attention_norm = eqx.nn.LayerNorm(sizes.dim, EPS)
        self.attention = eqx.nn.MultiheadAttention(sizes.heads, sizes.dim, **biases, key=key)
        self.feed_forward_norm = eqx.nn.LayerNorm(sizes.dim, EPS)
        self.feed_forward = FeedForward(sizes.dim, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``[time, dim]`` to the same."""
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        y = jax.vmap(self.attention_norm)(x)
        x = x + self.attention(y, y, y, mask=mask)
        return x + jax.vmap(lambda x: self.feed_forward(self.feed_forward_norm(x)))(x)


class GPT(eqx.Module):
    """The network; its blocks are a list, or one whose arrays are stacked."""

    embed: eqx.nn.Embedding
    positions: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    blocks: Any

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """``[time]`` to logits."""
        x = jax.vmap(self.embed)(tokens) + self.positions.weight
        if isinstance(self.blocks, list):
            for block in self.blocks:
                x = block(x)
        else:
            arrays, static = eqx.partition(self.blocks, eqx.is_array)
            x, _ = jax.lax.scan(lambda x, arrays: (eqx.combine(arrays, static)(x), None), x, arrays)
        return jax.vmap(self.norm)(x) @ self.embed.weight.T


def _block(sizes: Sizes, weights: Any) -> Block:
    weights = matrices(weights)
    names = {"query": "query_proj", "key": "key_proj", "value": "value_proj", "out": "output_proj"}
    attention = {names[name]: part for name, part in weights["attention"].items()}
    return fill(Block(sizes, jax.random.key(0)), weights | {"attention": attention})


def contestants(case: Case) -> dict[str, Call]:
    """Each form in a step over the leaves."""
    weights, sizes = case.given["weights"], case.given["sizes"]

    def made(scan: bool) -> Call:
        blocks: Any = [_block(sizes, block) for block in unstacked(weights)]
        if scan:
            parts = [eqx.partition(block, eqx.is_array) for block in blocks]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(arrays for arrays, _ in parts))
            blocks = eqx.combine(stacked, parts[0][1])
        tables = (eqx.nn.Embedding(weight=jnp.array(weights[n]["embedding"])) for n in ("embed", "positions"))
        model = GPT(*tables, fill(eqx.nn.LayerNorm(sizes.dim, EPS), weights["norm"]), blocks)
        return repeated(flat_loop(model, case.given["optimizer"](optax)), case.given["batch"])

    return {form(scan): made(scan) for scan in case.given["forms"]}
