"""Transformers of tokens (Vaswani et al. 2017).

===========================  ====================================================================
:func:`encoder`              tokens -> vectors, each sees all
:func:`language_model`       tokens -> logits of the next token, each sees those before
:func:`encoder_decoder`      two sequences of tokens -> logits of the second
===========================  ====================================================================

Blocks stand in depth as one scan, so that the time to compile does not grow with depth. Named
sizes of published language models are in ``gpt.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from purenets.compose import compose, serial
from purenets.layer import Layer, identity
from purenets.layers.attention import attention, cross_attention
from purenets.layers.dropout import dropout
from purenets.layers.embed import embedding
from purenets.layers.norm import layer_norm
from purenets.layers.positions import sinusoidal_positions
from purenets.models.transformer_block import Norm, feed_forward, given, in_depth, transformer_block
from purenets.signature import side_inputs

__all__ = ["encoder", "encoder_decoder", "language_model"]


def _sinusoids(dim: int) -> Layer:
    """Sinusoidal positions added to vectors made as large as they are (Vaswani et al. 2017, section 3.4)."""
    return serial(scale=lambda x: x * math.sqrt(dim), add=sinusoidal_positions(dim))


def encoder(
    size: int,
    dim: int,
    heads: int,
    depth: int,
    *,
    hidden: int | None = None,
    positions: Layer | None = None,
    norm: Norm = layer_norm,
    pre_norm: bool = True,
    activation: Callable[..., Any] = jax.nn.relu,
    rate: float = 0.0,
    remat: bool = False,
) -> Layer:
    """A Transformer encoder: token ids ``[batch, time]`` to vectors ``[batch, time, dim]``.

    Side inputs: ``lengths``, ``mask``, ``segments``, and those of the positions.

    Args:
        size: how many ids there are.
        dim: features.
        heads: attention heads.
        depth: blocks.
        hidden: units of the feed-forward network, ``4 dim`` by default.
        positions: a layer that adds positions, sinusoidal by default; ``identity`` for none.
        norm: ``norm(dim)``.
        pre_norm: the norms stand before; with ``False`` after, as in Vaswani et al. 2017.
        activation: of the feed-forward network.
        rate: dropout, after the embedding, of the attention weights, within and after each part.
        remat: compute each block again in the backward pass.
    """
    block = transformer_block(
        dim,
        attention(dim, heads, rate=rate),
        feed_forward(dim, hidden or 4 * dim, activation=activation, rate=rate),
        norm=norm,
        pre_norm=pre_norm,
        rate=rate,
    )
    return serial(
        embed=embedding(size, dim),
        positions=_sinusoids(dim) if positions is None else positions,
        drop=dropout(rate),
        blocks=in_depth(block, depth, remat=remat),
        norm=norm(dim) if pre_norm else identity,
    )


def language_model(
    embed: Layer,
    blocks: Layer,
    *,
    positions: Layer = identity,
    norm: Layer = identity,
    head: Layer | None = None,
    rate: float = 0.0,
) -> Layer:
    """Token ids ``[batch, time]`` to logits ``[batch, time, size]`` of the token after each.

    Side inputs ``lengths``, ``mask``, ``segments``, ``memory`` and ``memory_lengths`` go to the blocks,
    ``lengths`` and ``positions`` to the positions.

    Args:
        embed: an embedding.
        blocks: ``[batch, time, dim]`` to the same, causal: ``repeat(transformer_block(...), depth)``.
        positions: a layer that adds positions; none where the attention has relative ones.
        norm: before the head.
        head: ``dense(dim, size)``; without one the embedding is used again, transposed (Press & Wolf 2017).
        rate: what dropout drops of the embedded tokens.
    """
    takes = side_inputs(positions.apply)

    def language_model(
        m: Any,
        tokens: jax.Array,
        *,
        lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        segments: jax.Array | None = None,
        positions: jax.Array | None = None,
        memory: jax.Array | None = None,
        memory_lengths: jax.Array | None = None,
    ) -> jax.Array:
        told = given(lengths=lengths, positions=positions)
        x = m.positions(m.embed(tokens), **{name: told[name] for name in told if name in takes})
        side = given(
            lengths=lengths, mask=mask, segments=segments, memory=memory, memory_lengths=memory_lengths
        )
        x = m.norm(m.blocks(m.drop(x), **side))
        return x @ m.embed.params["embedding"].T if head is None else m.head(x)

    parts = {"embed": embed, "positions": positions, "drop": dropout(rate), "blocks": blocks, "norm": norm}
    return compose(**parts, **({"head": head} if head else {}))(language_model)


def encoder_decoder(
    source_size: int,
    target_size: int,
    dim: int,
    heads: int,
    depth: int,
    *,
    hidden: int | None = None,
    norm: Norm = layer_norm,
    pre_norm: bool = True,
    activation: Callable[..., Any] = jax.nn.relu,
    rate: float = 0.0,
    remat: bool = False,
) -> Layer:
    """The Transformer: ids ``[batch, source]`` and ``[batch, time]`` to logits ``[batch, time, target_size]``.

    The second input is what comes before each token to predict, a first token and then the target itself
    (teacher forcing). Side inputs: ``source_lengths`` and ``lengths``. Positions are sinusoidal, the
    embedding of the target is its head too, ``depth`` is that of encoder and of decoder; the other arguments
    are those of :func:`encoder`.

    To generate, encode once and go on with the decoder alone::

        memory, _ = model.parts["encoder"].apply(params["encoder"], {}, source)
        generate(model.parts["decoder"], params["decoder"], {}, first, steps=20, side={"memory": memory})
    """
    hidden = hidden or 4 * dim
    block = transformer_block(
        dim,
        attention(dim, heads, causal=True, rate=rate),
        feed_forward(dim, hidden, activation=activation, rate=rate),
        cross=cross_attention(dim, heads, rate=rate),
        norm=norm,
        pre_norm=pre_norm,
        rate=rate,
    )
    decoder = language_model(
        embedding(target_size, dim),
        in_depth(block, depth, remat=remat),
        positions=_sinusoids(dim),
        norm=norm(dim) if pre_norm else identity,
        rate=rate,
    )
    encode = encoder(
        source_size,
        dim,
        heads,
        depth,
        hidden=hidden,
        norm=norm,
        pre_norm=pre_norm,
        activation=activation,
        rate=rate,
        remat=remat,
    )

    @compose(encoder=encode, decoder=decoder)
    def encoder_decoder(
        m: Any,
        source: jax.Array,
        target: jax.Array,
        *,
        source_lengths: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        memory = m.encoder(source, lengths=source_lengths)
        return m.decoder(target, memory=memory, memory_lengths=source_lengths, lengths=lengths)

    return encoder_decoder
