"""Scores: how much each query takes from each key, and the weighted sum of the values.

::

    scores(query [batch, time, heads, head_dim], key [batch, source, kv_heads, head_dim], value, ...)
        -> [batch, time, heads, head_dim]

The weights of a query are the softmax of its scores over the keys that it sees, in float32 at least. They are
the input of the part ``weights``, which drops some in training, so that a tap on it captures the maps:
``edit(model, "**/scores/weights", tap)``. ``kv_heads`` may be fewer than ``heads``: then each key and value
serves a group of queries (Ainslie et al. 2023), or all of them (Shazeer 2019).

=============================  ==============================================================
:func:`scaled_dot_product`     q . k / sqrt(head_dim)                 (Vaswani et al. 2017)
:func:`dot_product`            q . k                                  (Luong et al. 2015)
:func:`additive`               w . tanh(q + k), w learned             (Bahdanau et al. 2015)
=============================  ==============================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.checks import at_least_float32
from purenets.compose import compose
from purenets.layer import Layer
from purenets.layers.dropout import dropout
from purenets.layers.masks import visible
from purenets.layers.shape import parameter

__all__ = ["Scores", "additive", "dot_product", "scaled_dot_product"]

Scores: TypeAlias = Callable[[int, int, float], Layer]
"""``scores(heads, head_dim, rate)``: what an attention layer makes its part ``scores`` with."""


def scaled_dot_product(heads: int, head_dim: int, rate: float = 0.0, *, fused: bool = True) -> Layer:
    """``q . k / sqrt(head_dim)`` (Vaswani et al. 2017, equation 1).

    Args:
        heads: heads of the queries.
        head_dim: width of a head.
        rate: the share of weights that is dropped in training.
        fused: on GPU and TPU, where nothing is dropped, let one call of ``jax.nn.dot_product_attention`` do
            it, which in half precision on GPU is flash attention: no weights exist to be tapped. On CPU
            matrix products in a layout of our own take three quarters of its time and are always used.
    """
    return _dot_products("scaled_dot_product", heads, rate, 1 / math.sqrt(head_dim), fused)


def dot_product(heads: int, head_dim: int, rate: float = 0.0, *, fused: bool = True) -> Layer:  # noqa: ARG001
    """``q . k`` (Luong et al. 2015, equation 8, "dot"); the arguments are those of the scaled one."""
    return _dot_products("dot_product", heads, rate, 1.0, fused)


def additive(heads: int, head_dim: int, rate: float = 0.0) -> Layer:
    """``w . tanh(q + k)``, one w for each head (Bahdanau et al. 2015, appendix A.1.2).

    The parameter is ``vector/value [heads, head_dim]``, at first normal of variance 1 / head_dim; the
    matrices of the paper are those that make queries and keys. ``[batch, time, source, heads, head_dim]``
    numbers are held at once.
    """

    def logits(m: Any, query: jax.Array, key: jax.Array) -> jax.Array:
        sums = query[:, :, None] + jnp.repeat(key, heads // key.shape[2], 2)[:, None]
        return at_least_float32(jnp.einsum("btsnh,nh->bnts", jnp.tanh(sums), m.vector()))

    vector = parameter((heads, head_dim), jax.nn.initializers.normal(head_dim**-0.5))
    return _scores(f"additive({heads}, {head_dim})", rate, logits, vector=vector)


def _dot_products(name: str, heads: int, rate: float, scale: float, fused: bool) -> Layer:
    def logits(_m: Any, query: jax.Array, key: jax.Array) -> jax.Array:
        return _products(query * scale, key)

    return _scores(f"{name}({heads})", rate, logits, scale if fused else None)


def _scores(
    label: str,
    rate: float,
    logits_of: Callable[[Any, jax.Array, jax.Array], jax.Array],
    fused_scale: float | None = None,
    **parts: Layer,
) -> Layer:
    def body(
        m: Any,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        causal: bool = False,
        window: int | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        near: Any = {"causal": causal, "window": window, "lengths": lengths}
        # The softmax of the fused call is of float32, by which float64 would lose.
        if fused_scale and not (m.train and rate) and _fuses(query):
            return _fused(query, key, value, mask, bias, fused_scale, **near)
        logits = logits_of(m, query, key)
        if bias is not None:
            logits = logits + bias
        seen = visible(query.shape[1], key.shape[1], mask=mask, **near)
        weights = _softmax(logits, seen, mask is not None or lengths is not None)
        return _weighted(m.weights(weights.astype(value.dtype)), value)

    body.__name__ = label
    return compose(**parts, weights=dropout(rate))(body)


def _products(query: jax.Array, key: jax.Array) -> jax.Array:
    """Every query with every key: ``[batch, heads, time, source]``, in float32 at least.

    The queries of a group of heads stand one below the other, so that there is one matrix product for each
    head of the keys.
    """
    batch, time, heads, dim = query.shape
    rows = jnp.swapaxes(query, 1, 2).reshape(batch, key.shape[2], -1, dim)
    columns = key.transpose(0, 2, 3, 1)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    return jnp.matmul(rows, columns, preferred_element_type=wide).reshape(batch, heads, time, key.shape[1])


def _softmax(logits: jax.Array, seen: jax.Array | None, perhaps_nothing: bool) -> jax.Array:
    """The softmax over what is seen; where nothing is, zeros."""
    if seen is None:
        return jax.nn.softmax(logits)
    weights = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(logits.dtype).min))
    return jnp.where(seen, weights, 0) if perhaps_nothing else weights


def _weighted(weights: jax.Array, value: jax.Array) -> jax.Array:
    """The sum of the values by ``[batch, heads, time, source]``: ``[batch, time, heads, head_dim]``."""
    batch, heads, time, source = weights.shape
    rows = weights.reshape(batch, value.shape[2], -1, source)
    sums = rows @ jnp.swapaxes(value, 1, 2)
    return jnp.swapaxes(sums.reshape(batch, heads, time, -1), 1, 2)


def _fuses(query: jax.Array) -> bool:
    return jax.default_backend() != "cpu" and query.dtype != jnp.float64


def _fused(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    scale: float,
    *,
    causal: bool,
    window: int | None,
    lengths: jax.Array | None,
) -> jax.Array:
    if mask is not None:
        mask = visible(query.shape[1], key.shape[1], causal=causal, window=window, lengths=lengths, mask=mask)
        causal, window, lengths = False, None, None
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=None if bias is None else bias.astype(query.dtype),
        mask=mask,
        scale=scale,
        is_causal=causal,
        key_value_seq_lengths=None if lengths is None else lengths.astype(jnp.int32),
        local_window_size=None if window is None else (window - 1, 0 if causal else window - 1),
        implementation="cudnn" if _flash(query, mask, bias, causal, window) else "xla",
    )
    if mask is not None:
        return jnp.where(jnp.swapaxes(mask.any(-1), 1, 2)[..., None], out, 0)
    return out if lengths is None else jnp.where(lengths[:, None, None, None] > 0, out, 0)


def _flash(
    query: jax.Array, mask: jax.Array | None, bias: jax.Array | None, causal: bool, window: int | None
) -> bool:
    """Whether cuDNN has a kernel that holds no matrix of scores."""
    return (
        _ampere()
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 128
        and mask is None
        and bias is None
        and (causal or window is None)
    )


def _ampere() -> bool:
    """Whether it is an NVIDIA card of compute capability 8.0 or later."""
    capability = getattr(jax.devices()[0], "compute_capability", "")
    return capability.replace(".", "").isdigit() and float(capability) >= 8
