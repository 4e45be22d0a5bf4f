"""Flax nnx; its loop is ``nnx.scan`` over blocks made by ``nnx.vmap``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.loops import repeated
from benchmarks.loops.nnx import fill, split_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import EPS, Sizes, form, unstacked


class FeedForward(nnx.Module):
    """Two layers."""

    def __init__(self, dim: int, rngs: nnx.Rngs) -> None:
        self.up, self.down = nnx.Linear(dim, 4 * dim, rngs=rngs), nnx.Linear(4 * dim, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """On each position."""
        return self.down(nnx.gelu(self.up(x)))


class Block(nnx.Module):
    """Attention and the feed-forward network."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        dim = sizes.dim
        self.attention_norm = nnx.LayerNorm(dim, epsilon=EPS, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(sizes.heads, dim, decode=False, rngs=rngs)
        self.feed_forward_norm = nnx.LayerNorm(dim, epsilon=EPS, rngs=rngs)
        self.feed_forward = FeedForward(dim, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """To the same."""
        x = x + self.attention(self.attention_norm(x), mask=nnx.make_causal_mask(x[..., 0]))
        return x + self.feed_forward(self.feed_forward_norm(x))


class GPT(nnx.Module):
    """The network."""

    def __init__(self, sizes: Sizes, scan: bool, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(sizes.vocabulary, sizes.dim, rngs=rngs)
        self.positions = nnx.Embed(sizes.time, sizes.dim, rngs=rngs)
        self.norm = nnx.LayerNorm(sizes.dim, epsilon=EPS, rngs=rngs)
        self.scan = scan
        if scan:
            made = nnx.vmap(lambda rngs: Block(sizes, rngs))
            self.blocks = nnx.split_rngs(splits=sizes.depth)(made)(rngs)
        else:
            self.blocks = nnx.List([Block(sizes, rngs) for _ in range(sizes.depth)])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """To logits."""
        x = self.embed(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        if self.scan:
            axes = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry}
            x = nnx.scan(lambda x, block: block(x), **axes)(x, self.blocks)
        else:
            for block in self.blocks:
                x = block(x)
        return self.embed.attend(self.norm(x))


def contestants(case: Case) -> dict[str, Call]:
    """Each form by split and merge, the cheaper of the fast forms."""
    weights = case.given["weights"]

    def made(scan: bool) -> Call:
        model = GPT(case.given["sizes"], scan, nnx.Rngs(0))
        blocks = weights["blocks"] if scan else {str(i): block for i, block in enumerate(unstacked(weights))}
        fill(model, weights | {"blocks": blocks})
        return repeated(split_loop(model, case.given["optimizer"](optax)), case.given["batch"])

    return {form(scan): made(scan) for scan in case.given["forms"]}
