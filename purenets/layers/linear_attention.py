"""Linear attention: weights that are products of features, so that sums over the past are all there is to keep.

Katharopoulos et al. 2020, arXiv 2006.16236. With a positive feature map phi, here elu(x) + 1::

    y_i = phi(q_i) . S_i / phi(q_i) . z_i,     S_i = sum_j phi(k_j) v_j^T,     z_i = sum_j phi(k_j)

where j runs over what i sees: all (equation 5), or up to i (equations 9 to 12). The causal sums have three
forms that give the same numbers:

======================  ================================  ==========================
form                    operations                        steps one after another
======================  ================================  ==========================
:func:`parallel`        time^2 head_dim                   1
:func:`recurrent`       time head_dim^2                   time
:func:`chunked`         time head_dim (chunk + head_dim)  time / chunk
======================  ================================  ==========================

Queries, keys and values are ``[batch, time, heads, head_dim]``, after the feature map; *sums* are the pair
``matrix [batch, heads, head_dim, head_dim]`` (S) and ``vector [batch, heads, head_dim]`` (z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.checks import at_least_float32
from purenets.compose import compose
from purenets.layer import Layer, Params, State, layer
from purenets.layers.checks import check_lengths, check_sequence
from purenets.layers.heads import from_heads, head_sizes, to_heads

__all__ = ["chunked", "elu_features", "linear_attention", "parallel", "recurrent"]

Sums: TypeAlias = tuple[jax.Array, jax.Array]

_lecun = jax.nn.initializers.lecun_normal()


def elu_features(x: jax.Array) -> jax.Array:
    """``elu(x) + 1``, which is positive everywhere (equation 7)."""
    return jax.nn.elu(x) + 1


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """Sums of values over sums of weights; 0 where nothing was summed."""
    some = (below > 0)[..., None]
    return jnp.where(some, above / jnp.where(some, below[..., None], 1), 0)


def _within(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Causal sums of values and of weights, by the matrix of all weights."""
    weights = jnp.tril(jnp.einsum("btnh,bsnh->bnts", query, key))
    return jnp.einsum("bnts,bsnv->btnv", weights, value), jnp.swapaxes(weights.sum(-1), 1, 2)


def _from_sums(query: jax.Array, sums: Sums) -> tuple[jax.Array, jax.Array]:
    return jnp.einsum("btnh,bnhv->btnv", query, sums[0]), jnp.einsum("btnh,bnh->btn", query, sums[1])


def _grown(sums: Sums, key: jax.Array, value: jax.Array) -> Sums:
    return sums[0] + jnp.einsum("bsnh,bsnv->bnhv", key, value), sums[1] + key.sum(1)


def _no_sums(batch: int, heads: int, head_dim: int, dtype: Any) -> Sums:
    return jnp.zeros((batch, heads, head_dim, head_dim), dtype), jnp.zeros((batch, heads, head_dim), dtype)


def parallel(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Causal linear attention by the matrix of all weights."""
    return _ratio(*_within(query, key, value))


def recurrent(query: jax.Array, key: jax.Array, value: jax.Array, sums: Sums) -> tuple[jax.Array, Sums]:
    """Causal linear attention step by step, on from the sums of the steps before; output and new sums."""
    return chunked(query, key, value, sums, 1)


def chunked(
    query: jax.Array, key: jax.Array, value: jax.Array, sums: Sums, chunk: int = 64
) -> tuple[jax.Array, Sums]:
    """Causal linear attention chunk by chunk: within one by the matrix, before it by the sums."""
    batch, time, heads, dim = query.shape
    chunk = min(chunk, time)
    count = -(-time // chunk)

    def cut(x: jax.Array) -> jax.Array:
        # Zeros at the end add nothing to any sum.
        x = jnp.pad(x, ((0, 0), (0, count * chunk - time), (0, 0), (0, 0)))
        return jnp.moveaxis(x.reshape(batch, count, chunk, heads, dim), 1, 0)

    def step(sums: Sums, now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Sums, jax.Array]:
        query, key, value = now
        inside, before = _within(query, key, value), _from_sums(query, sums)
        y = _ratio(inside[0] + before[0], inside[1] + before[1])
        return _grown(sums, key, value), y

    sums, y = jax.lax.scan(step, sums, (cut(query), cut(key), cut(value)))
    return jnp.moveaxis(y, 0, 1).reshape(batch, count * chunk, heads, dim)[:, :time], sums


def linear_attention(
    dim: int,
    heads: int,
    *,
    head_dim: int | None = None,
    causal: bool = False,
    chunk: int = 64,
    features: Callable[[jax.Array], jax.Array] = elu_features,
    bias: bool = True,
    kernel_init: Any = _lecun,
    out_init: Any = _lecun,
) -> Layer:
    """Multi-head linear attention of a sequence to itself: ``[batch, time, dim]`` to the same.

    Params are those of :func:`~purenets.layers.attention.attention`. The side input ``lengths [batch]`` says
    how many steps of each sequence count. In a stream the sums are kept, whatever its length: there is no
    context to run out of.

    Args:
        dim: features.
        heads: how many queries, keys and values each position has.
        head_dim: width of a head, ``dim / heads`` by default.
        causal: no position sees a later one.
        chunk: steps of a chunk, of :func:`chunked`.
        features: the feature map, positive.
        bias: of the four affine maps.
        kernel_init: initial values of queries, keys and values.
        out_init: initial values of ``out``.

    Raises:
        ValueError: the heads do not divide ``dim``; the input is not ``[batch, time, dim]``; a stream was not
            opened, or is of attention that is not causal.
    """
    _, head_dim = head_sizes("linear_attention", dim, heads, None, head_dim)
    label = f"linear_attention({dim}, {heads})"

    def body(m: Any, x: jax.Array, *, lengths: jax.Array | None = None) -> jax.Array:
        check_sequence(label, x, dim)
        check_lengths(label, lengths, x)
        query, key = (at_least_float32(features(part(x))) for part in (m.query, m.key))
        if lengths is not None:
            key = jnp.where((jnp.arange(x.shape[1]) < lengths[:, None])[..., None, None], key, 0)
        return m.out(m.scores(query, key, at_least_float32(m.value(x))).astype(x.dtype))

    body.__name__ = label
    maps = {
        name: to_heads(dim, heads, head_dim, bias=bias, kernel_init=kernel_init)
        for name in ("query", "key", "value")
    }
    out = from_heads(heads, head_dim, dim, bias=bias, kernel_init=out_init)
    return compose(**maps, scores=_linear_scores(heads, head_dim, causal, chunk), out=out)(body)


def _linear_scores(heads: int, head_dim: int, causal: bool, chunk: int) -> Layer:
    label = f"linear({heads}, {head_dim})"

    def apply(
        _params: Params, state: State, query: jax.Array, key: jax.Array, value: jax.Array, *, stream: bool
    ) -> tuple[jax.Array, State]:
        start = _no_sums(query.shape[0], heads, head_dim, query.dtype)
        if not causal:
            if stream:
                raise ValueError(
                    f"{label} is not causal and cannot stream: what comes later is needed at once"
                )
            return _ratio(*_from_sums(query, _grown(start, key, value))), state
        if not stream:
            return chunked(query, key, value, start, chunk)[0], state
        if "matrix" not in state:
            raise ValueError(f"{label} has no stream: state = open_stream(model, state, batch=, length=)")
        y, (matrix, vector) = chunked(query, key, value, (state["matrix"], state["vector"]), chunk)
        return y, {"matrix": matrix, "vector": vector}

    def memory(batch: int, length: int) -> State:  # noqa: ARG001
        if not causal:
            return {}
        matrix, vector = _no_sums(batch, heads, head_dim, jnp.float32)
        return {"matrix": matrix, "vector": vector}

    return layer(None, apply, memory=memory, label=label)
