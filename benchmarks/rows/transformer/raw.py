"""JAX by hand, with one product for queries, keys and values."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import EPS, Sizes, form, matrices, unstacked


def _norm(x: jax.Array, p: Any) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + EPS) * p["scale"] + p["bias"]


def _affine(x: jax.Array, p: Any) -> jax.Array:
    return x @ p["kernel"] + p["bias"]


def _block(heads: int, x: jax.Array, p: Any) -> jax.Array:
    batch, time, dim = x.shape
    qkv = _affine(_norm(x, p["attention_norm"]), p["attention"]["qkv"])
    q, k, v = jnp.moveaxis(qkv.reshape(batch, time, 3, heads, dim // heads), 2, 0).swapaxes(2, 3)
    scores = q @ k.swapaxes(2, 3) / math.sqrt(dim // heads)
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -1e30)
    y = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(batch, time, dim)
    x = x + _affine(y, p["attention"]["out"])
    y = jax.nn.gelu(_affine(_norm(x, p["feed_forward_norm"]), p["feed_forward"]["up"]))
    return x + _affine(y, p["feed_forward"]["down"])


def _run(sizes: Sizes, scan: bool, p: Any, state: Any, tokens: jax.Array) -> Any:
    x = p["embed"]["embedding"][tokens] + p["positions"]["embedding"]
    block = partial(_block, sizes.heads)
    if scan:
        x, _ = jax.lax.scan(lambda x, p: (block(x, p), None), x, p["blocks"])
    else:
        for each in p["blocks"]:
            x = block(x, each)
    return _norm(x, p["norm"]) @ p["embed"]["embedding"].T, state


def _fused(block: Any) -> Any:
    """Queries, keys and values as one map."""
    attention = matrices(block)["attention"]
    three = [attention[name] for name in ("query", "key", "value")]
    joined = {leaf: jnp.concatenate([part[leaf] for part in three], -1) for leaf in ("kernel", "bias")}
    return block | {"attention": {"qkv": joined, "out": attention["out"]}}


def contestants(case: Case) -> dict[str, Call]:
    """Each form in a jitted step."""
    weights, sizes = case.given["weights"], case.given["sizes"]

    def made(scan: bool) -> Call:
        blocks = _fused(weights["blocks"]) if scan else [_fused(block) for block in unstacked(weights)]
        run, optimizer = partial(_run, sizes, scan), case.given["optimizer"](optax)
        return repeated(raw.loop(run, weights | {"blocks": blocks}, {}, optimizer), case.given["batch"])

    return {form(scan): made(scan) for scan in case.given["forms"]}
