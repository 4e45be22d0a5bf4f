"""Decoder-only language models from the same parts: GPT-2 (Radford et al. 2019) and Llama (Touvron et al. 2023).

===================  ===============================  =========================================
                     :func:`gpt`                      :func:`llama`
===================  ===============================  =========================================
positions            learned, added                   rotary
norm                 layer norm, before               root mean square, before
feed-forward         gelu, 4 dim                      SwiGLU
biases               everywhere                       nowhere
keys and values      as many as queries               perhaps fewer
head                 the embedding again              its own
===================  ===============================  =========================================

Parameters are counted without allocating any: ``outline(gpt2())``.
"""

from __future__ import annotations

import math
from functools import partial

import jax

from purenets.layer import Layer
from purenets.layers.attention import attention
from purenets.layers.dense import dense
from purenets.layers.embed import embedding
from purenets.layers.norm import layer_norm, rms_norm
from purenets.layers.positions import learned_positions, rotary
from purenets.models.transformer import language_model
from purenets.models.transformer_block import feed_forward, in_depth, swiglu, transformer_block

__all__ = ["gpt", "gpt2", "llama", "llama_2_7b", "llama_3_8b"]

_normal = jax.nn.initializers.normal(0.02)

_GPT2 = {"124M": (768, 12, 12), "355M": (1024, 16, 24), "774M": (1280, 20, 36), "1558M": (1600, 25, 48)}


def gpt(
    size: int,
    dim: int,
    heads: int,
    depth: int,
    context: int,
    *,
    rate: float = 0.0,
    remat: bool = False,
    unroll: int = 1,
) -> Layer:
    """A language model in the form of GPT-2: ids ``[batch, time]`` to logits ``[batch, time, size]``.

    Initial values are normal of deviation 0.02, of the layers that end a shortcut 0.02 / sqrt(2 depth).

    Args:
        size: how many ids there are.
        dim: features.
        heads: attention heads.
        depth: blocks.
        context: the longest sequence.
        rate: dropout, after the embedding, of the attention weights and after each part.
        remat: compute each block again in the backward pass.
        unroll: blocks per turn of the scan, as of ``jax.lax.scan``.

    >>> from purenets.surgery import out_shape
    >>> import jax.numpy as jnp
    >>> out_shape(gpt(65, 32, 4, depth=2, context=16), 1, 16, dtype=jnp.int32)
    (1, 16, 65)
    """
    last = jax.nn.initializers.normal(0.02 / math.sqrt(2 * depth))
    norm = partial(layer_norm, eps=1e-5)
    block = transformer_block(
        dim,
        attention(dim, heads, causal=True, rate=rate, kernel_init=_normal, out_init=last),
        feed_forward(dim, 4 * dim, kernel_init=_normal, out_init=last),
        norm=norm,
        rate=rate,
    )
    return language_model(
        embedding(size, dim, embedding_init=_normal),
        in_depth(block, depth, remat=remat, unroll=unroll),
        positions=learned_positions(context, dim, embedding_init=_normal),
        norm=norm(dim),
        rate=rate,
    )


def gpt2(name: str = "124M", *, rate: float = 0.0, remat: bool = False) -> Layer:
    """GPT-2 in one of its published sizes: ``124M``, ``355M``, ``774M`` or ``1558M``.

    Raises:
        ValueError: there is no such size.
    """
    if name not in _GPT2:
        raise ValueError(f"gpt2 has the sizes {', '.join(_GPT2)}, got {name!r}")
    dim, heads, depth = _GPT2[name]
    return gpt(50257, dim, heads, depth, 1024, rate=rate, remat=remat)


def llama(
    size: int,
    dim: int,
    heads: int,
    depth: int,
    hidden: int,
    *,
    kv_heads: int | None = None,
    base: float = 10000.0,
    eps: float = 1e-5,
    remat: bool = False,
) -> Layer:
    """A language model in the form of Llama: ids ``[batch, time]`` to logits ``[batch, time, size]``.

    Args:
        size: how many ids there are.
        dim: features.
        heads: attention heads.
        depth: blocks.
        hidden: units of the feed-forward network.
        kv_heads: how many keys and values each position has, ``heads`` by default.
        base: of the rotary positions.
        eps: of the norms.
        remat: compute each block again in the backward pass.
    """
    norm = partial(rms_norm, eps=eps)
    attend = attention(
        dim,
        heads,
        kv_heads=kv_heads,
        causal=True,
        relative=rotary(base),
        bias=False,
        kernel_init=_normal,
        out_init=_normal,
    )
    feed = swiglu(dim, hidden, kernel_init=_normal, out_init=_normal)
    return language_model(
        embedding(size, dim, embedding_init=_normal),
        in_depth(transformer_block(dim, attend, feed, norm=norm), depth, remat=remat),
        norm=norm(dim),
        head=dense(dim, size, bias=False, kernel_init=_normal),
    )


def llama_2_7b(*, remat: bool = False) -> Layer:
    """Llama 2 of 7 billion parameters (Touvron et al. 2023b)."""
    return llama(32000, 4096, 32, 32, 11008, remat=remat)


def llama_3_8b(*, remat: bool = False) -> Layer:
    """Llama 3 of 8 billion parameters (Grattafiori et al. 2024, table 3): grouped keys, base 500,000."""
    return llama(128256, 4096, 32, 32, 14336, kv_heads=8, base=500000.0, remat=remat)
