"""The GPT of ``benchmarks.sequence`` twice more: in Flax linen, and written by hand in plain JAX."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = ["LinenGPT", "hand_init", "hand_logits"]


class _Block(nn.Module):
    dim: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mask = nn.make_causal_mask(x[..., 0])
        y = nn.LayerNorm(epsilon=1e-5)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads)(y, mask=mask)
        y = nn.LayerNorm(epsilon=1e-5)(x)
        return x + nn.Dense(self.dim)(nn.gelu(nn.Dense(4 * self.dim)(y)))


class LinenGPT(nn.Module):
    """Flax linen: blocks one after another, or with ``scan`` as one."""

    size: int
    dim: int
    heads: int
    depth: int
    context: int
    scan: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Token ids to logits."""
        embed = nn.Embed(self.size, self.dim)
        positions = self.param("positions", nn.initializers.normal(0.02), (self.context, self.dim))
        x = embed(tokens) + positions[: tokens.shape[1]]
        if self.scan:
            blocks = nn.scan(
                lambda block, x, _: (block(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth,
            )
            x, _ = blocks(_Block(self.dim, self.heads), x, None)
        else:
            for _ in range(self.depth):
                x = _Block(self.dim, self.heads)(x)
        return embed.attend(nn.LayerNorm(epsilon=1e-5)(x))


def hand_init(key: jax.Array, size: int, dim: int, depth: int, context: int) -> dict[str, Any]:
    """Params of :func:`hand_logits`, those of the blocks stacked."""
    shapes = {
        "qkv": (depth, dim, 3 * dim),
        "out": (depth, dim, dim),
        "up": (depth, dim, 4 * dim),
        "down": (depth, 4 * dim, dim),
    }
    keys = iter(jax.random.split(key, 6))
    blocks = {name: 0.02 * jax.random.normal(next(keys), shape) for name, shape in shapes.items()}
    blocks |= {f"{name}_bias": jnp.zeros((depth, shape[-1])) for name, shape in shapes.items()}
    for name in ("norm_1", "norm_2"):
        blocks |= {name: jnp.ones((depth, dim)), f"{name}_bias": jnp.zeros((depth, dim))}
    return {
        "embed": 0.02 * jax.random.normal(next(keys), (size, dim)),
        "positions": 0.02 * jax.random.normal(next(keys), (context, dim)),
        "blocks": blocks,
        "norm": jnp.ones(dim),
        "norm_bias": jnp.zeros(dim),
    }


def _norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + bias


def _hand_block(p: dict[str, jax.Array], x: jax.Array, heads: int) -> jax.Array:
    batch, time, dim = x.shape
    y = _norm(x, p["norm_1"], p["norm_1_bias"])
    split = (y @ p["qkv"] + p["qkv_bias"]).reshape(batch, time, 3, heads, dim // heads)
    q, k, v = (split[:, :, i].swapaxes(1, 2) for i in range(3))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(dim // heads)
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -1e30)
    y = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(batch, time, dim)
    x = x + y @ p["out"] + p["out_bias"]
    y = jax.nn.gelu(_norm(x, p["norm_2"], p["norm_2_bias"]) @ p["up"] + p["up_bias"])
    return x + y @ p["down"] + p["down_bias"]


def hand_logits(params: dict[str, Any], tokens: jax.Array, heads: int, *, scan: bool) -> jax.Array:
    """Plain JAX: blocks one after another, or as one scan."""
    x = params["embed"][tokens] + params["positions"][: tokens.shape[1]]
    if scan:
        x, _ = jax.lax.scan(lambda x, p: (_hand_block(p, x, heads), None), x, params["blocks"])
    else:
        for i in range(params["blocks"]["qkv"].shape[0]):
            x = _hand_block(jax.tree.map(lambda leaf: leaf[i], params["blocks"]), x, heads)  # noqa: B023
    return _norm(x, params["norm"], params["norm_bias"]) @ params["embed"].T
