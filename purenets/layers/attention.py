"""Attention: each query takes a weighted sum of values, by how well their keys fit it (Vaswani et al. 2017).

:func:`attention` is of a sequence to itself, :func:`cross_attention` of a sequence to another, its *memory*.
Both are compositions, so that every part can be edited and tapped::

    query, key, value     [batch, time, dim] -> [batch, time, heads, head_dim]
    clock                 the position of each step
    cache                 keys and values, in a stream with those of the steps before
    scores                the weighted sums, with the weights as a part of their own
    out                   [batch, time, heads, head_dim] -> [batch, time, dim]

Params have Flax's names and shapes: ``query/kernel [dim, heads, head_dim]``, ``query/bias [heads, head_dim]``
and likewise ``key`` and ``value``; ``out/kernel [heads, head_dim, dim]`` and ``out/bias [dim]``.

In a stream each sequence has as many *slots* for keys and values as it was opened for. What comes after the
last slot is NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.compose import compose
from purenets.layer import Layer, describe
from purenets.layers.attention_scores import Scores, scaled_dot_product
from purenets.layers.checks import check_lengths, check_sequence
from purenets.layers.heads import from_heads, head_sizes, to_heads
from purenets.layers.kv_cache import kv_cache, memory_cache
from purenets.layers.masks import both, check_mask, near_mask, segment_mask
from purenets.layers.positions import Relative, clock

__all__ = ["attention", "cross_attention"]

_lecun = jax.nn.initializers.lecun_normal()


def attention(
    dim: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    causal: bool = False,
    window: int | None = None,
    relative: Relative = Relative(),
    scores: Scores = scaled_dot_product,
    rate: float = 0.0,
    bias: bool = True,
    kernel_init: Any = _lecun,
    out_init: Any = _lecun,
) -> Layer:
    """Multi-head attention of a sequence to itself: ``[batch, time, dim]`` to the same.

    Side inputs: ``mask``, boolean, which broadcasts to ``[batch, heads, time, source]``, where source is time
    or in a stream the number of slots; ``lengths [batch]``, how many steps of each sequence count, the first
    ones; ``segments [batch, time]``, ids of packed sequences that do not see each other.

    Args:
        dim: features.
        heads: how many queries each position has.
        kv_heads: how many keys and values, ``heads`` by default; fewer are grouped-query attention (Ainslie
            et al. 2023), one is multi-query attention (Shazeer 2019).
        head_dim: width of a head, ``dim / heads`` by default.
        causal: no position sees a later one.
        window: a position sees those nearer than this, itself included.
        relative: positions, as :func:`rotary` or :func:`alibi` from ``positions.py``.
        scores: how queries meet keys: ``scaled_dot_product``, ``dot_product`` or ``additive``.
        rate: the share of weights that is dropped in training.
        bias: of the four affine maps.
        kernel_init: initial values of queries, keys and values.
        out_init: initial values of ``out``.

    Raises:
        ValueError: the heads do not divide ``dim``, or the ``kv_heads`` the heads. When applied: the input is
            not ``[batch, time, dim]``; a side input has another shape; a stream was not opened, or is of
            attention that is not causal or has segments.

    >>> model = attention(16, 4, causal=True)
    >>> params, state = model.init(jax.random.key(0))
    >>> model.apply(params, state, jnp.ones((2, 5, 16)))[0].shape
    (2, 5, 16)
    """
    kv_heads, head_dim = head_sizes("attention", dim, heads, kv_heads, head_dim)
    label = f"attention({dim}, {heads})"
    if window is not None and window < 1:
        raise ValueError(f"{label} needs a window of at least 1, got {window}")
    parts = {
        "query": to_heads(dim, heads, head_dim, bias=bias, kernel_init=kernel_init),
        "key": to_heads(dim, kv_heads, head_dim, bias=bias, kernel_init=kernel_init),
        "value": to_heads(dim, kv_heads, head_dim, bias=bias, kernel_init=kernel_init),
        "scores": scores(heads, head_dim, rate),
        "out": from_heads(heads, head_dim, dim, bias=bias, kernel_init=out_init),
    }
    if causal:
        parts |= {"clock": clock(), "cache": kv_cache(kv_heads, head_dim)}

    def body(
        m: Any,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        lengths: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        check_sequence(label, x, dim)
        check_lengths(label, lengths, x)
        if m.stream:
            _check_stream(label, causal, segments)
        steps = m.clock(x, lengths=lengths) if causal else jnp.arange(x.shape[1])[None]
        query, key, value = m.query(x), m.key(x), m.value(x)
        if relative.rotate is not None:
            query, key = relative.rotate(query, steps), relative.rotate(key, steps)
        if causal:
            key, value = m.cache(key, value, steps, lengths=lengths)
        slots = jnp.arange(key.shape[1])[None]
        check_mask(label, mask, (x.shape[0], heads, x.shape[1], key.shape[1]))
        added = None if relative.bias is None else relative.bias(steps, slots)
        if m.stream:
            seen = both(near_mask(steps, slots, causal=True, window=window), mask)
            y = m.scores(query, key, value, mask=seen, bias=added)
            return jnp.where((steps < key.shape[1])[..., None], m.out(y), jnp.nan)
        if segments is not None:
            _check_segments(label, segments, x)
            mask = both(mask, segment_mask(segments, segments))
        y = m.scores(query, key, value, mask=mask, bias=added, causal=causal, window=window, lengths=lengths)
        return m.out(y)

    body.__name__ = label
    return compose(**parts)(body)


def _check_stream(label: str, causal: bool, segments: Any) -> None:
    if not causal:
        raise ValueError(f"{label} is not causal and cannot stream: what comes later is needed at once")
    if segments is not None:
        raise ValueError(f"{label} cannot stream packed sequences: give each a row of its own")


def _check_segments(label: str, segments: Any, x: jax.Array) -> None:
    if jnp.shape(segments) != x.shape[:2] or not jnp.issubdtype(jnp.result_type(segments), jnp.integer):
        raise ValueError(
            f"{label} needs integer segments {list(x.shape[:2])}, got {describe(jnp.asarray(segments))}"
        )


def cross_attention(
    dim: int,
    heads: int,
    *,
    n_memory: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    scores: Scores = scaled_dot_product,
    rate: float = 0.0,
    bias: bool = True,
    kernel_init: Any = _lecun,
    out_init: Any = _lecun,
) -> Layer:
    """Multi-head attention of a sequence to another one: ``[batch, time, dim]`` to the same.

    Side inputs: ``memory [batch, source, n_memory]``, the other sequence; ``memory_lengths [batch]``, how
    many steps of it count; ``mask``, boolean, which broadcasts to ``[batch, heads, time, source]``.

    In a stream the memory is given at the first call and kept as keys and values, in as many slots as the
    stream has; at later calls it may be left out.

    Args:
        dim: features.
        heads: how many queries each position has.
        n_memory: features of the memory, ``dim`` by default.
        kv_heads: how many keys and values, ``heads`` by default.
        head_dim: width of a head, ``dim / heads`` by default.
        scores: how queries meet keys: ``scaled_dot_product``, ``dot_product`` or ``additive``.
        rate: the share of weights that is dropped in training.
        bias: of the four affine maps.
        kernel_init: initial values of queries, keys and values.
        out_init: initial values of ``out``.

    Raises:
        ValueError: the heads do not divide ``dim``, or the ``kv_heads`` the heads. When applied: an input has
            another shape; no memory is given; a stream was not opened, or for less than the memory.
    """
    kv_heads, head_dim = head_sizes("cross_attention", dim, heads, kv_heads, head_dim)
    n_memory = dim if n_memory is None else n_memory
    label = f"cross_attention({dim}, {heads})"

    def body(
        m: Any,
        x: jax.Array,
        *,
        memory: jax.Array | None = None,
        memory_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        check_sequence(label, x, dim)
        pair: Any = None
        if memory is not None:
            check_sequence(f"the memory of {label}", memory, n_memory)
            check_lengths(f"the memory of {label}", memory_lengths, memory)
            pair = m.key(memory), m.value(memory)
        elif not m.stream:
            raise ValueError(f"{label} needs the side input memory [batch, source, {n_memory}]")
        query = m.query(x)
        (key, value), counts = m.cache(query.dtype, pair, memory_lengths)
        check_mask(label, mask, (x.shape[0], heads, x.shape[1], key.shape[1]))
        y = m.out(m.scores(query, key, value, mask=mask, lengths=counts))
        return jnp.where((counts >= 0)[:, None, None], y, jnp.nan) if m.stream else y

    body.__name__ = label
    return compose(
        query=to_heads(dim, heads, head_dim, bias=bias, kernel_init=kernel_init),
        key=to_heads(n_memory, kv_heads, head_dim, bias=bias, kernel_init=kernel_init),
        value=to_heads(n_memory, kv_heads, head_dim, bias=bias, kernel_init=kernel_init),
        cache=memory_cache(kv_heads, head_dim),
        scores=scores(heads, head_dim, rate),
        out=from_heads(heads, head_dim, dim, bias=bias, kernel_init=out_init),
    )(body)
