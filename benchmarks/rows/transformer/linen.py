"""Flax linen; its loop is ``nn.scan``."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import linen, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import EPS, Sizes, form, unstacked


class FeedForward(nn.Module):
    """Two layers."""

    dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """On each position."""
        return nn.Dense(self.dim, name="down")(nn.gelu(nn.Dense(4 * self.dim, name="up")(x)))


class Block(nn.Module):
    """Attention and the feed-forward network."""

    dim: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """To the same."""
        mask = nn.make_causal_mask(x[..., 0])
        y = nn.LayerNorm(epsilon=EPS, name="attention_norm")(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, name="attention")(y, mask=mask)
        y = nn.LayerNorm(epsilon=EPS, name="feed_forward_norm")(x)
        return x + FeedForward(self.dim, name="feed_forward")(y)


class GPT(nn.Module):
    """The network."""

    sizes: Sizes
    scan: bool

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """To logits."""
        size = self.sizes
        embed = nn.Embed(size.vocabulary, size.dim, name="embed")
        x = embed(tokens) + nn.Embed(size.time, size.dim, name="positions")(jnp.arange(size.time))
        if self.scan:
            blocks = nn.scan(
                lambda block, x, _: (block(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=size.depth,
            )
            x, _ = blocks(Block(size.dim, size.heads, name="blocks"), x, None)
        else:
            for number in range(size.depth):
                x = Block(size.dim, size.heads, name=f"block_{number}")(x)
        return embed.attend(nn.LayerNorm(epsilon=EPS, name="norm")(x))


def contestants(case: Case) -> dict[str, Call]:
    """Each form in a jitted step of a TrainState."""
    weights = case.given["weights"]
    ends = {name: part for name, part in weights.items() if name != "blocks"}
    each = ends | {f"block_{number}": block for number, block in enumerate(unstacked(weights))}

    def made(scan: bool) -> Call:
        optimizer = case.given["optimizer"](optax)
        loop = linen.loop(GPT(case.given["sizes"], scan), weights if scan else each, optimizer)
        return repeated(loop, case.given["batch"])

    return {form(scan): made(scan) for scan in case.given["forms"]}
