"""The Vision Transformer (Dosovitskiy et al. 2021): an image is a sequence of square patches.

Each patch becomes a vector by one matrix, which is a convolution as wide as its stride. A learned vector, the
*class token*, may go ahead of them; the class is read from what it has become, or from the mean of all.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from purenets.compose import compose
from purenets.layer import Layer, identity
from purenets.layers.attention import attention
from purenets.layers.conv import Sizes, conv, sizes_of
from purenets.layers.dense import dense
from purenets.layers.dropout import dropout
from purenets.layers.norm import layer_norm
from purenets.layers.positions import learned_positions
from purenets.layers.shape import parameter
from purenets.lift import repeat
from purenets.models.transformer_block import feed_forward, transformer_block

__all__ = ["vit"]


def vit(
    image: Sizes = 224,
    patch: Sizes = 16,
    classes: int = 1000,
    *,
    dim: int = 768,
    heads: int = 12,
    depth: int = 12,
    hidden: int | None = None,
    channels: int = 3,
    pool: Literal["class", "mean"] = "class",
    rate: float = 0.0,
    remat: bool = False,
) -> Layer:
    """A Vision Transformer, ``[batch, height, width, channels]`` to logits ``[batch, classes]``.

    The defaults are ViT-B/16, of 86,567,656 parameters.

    Args:
        image: height and width; the positions are learned for these.
        patch: height and width of a patch.
        classes: outputs.
        dim: features of a token.
        heads: attention heads.
        depth: blocks, which run under ``repeat``.
        hidden: units of the feed-forward networks, ``4 dim`` by default.
        channels: of the image.
        pool: read the class from the ``"class"`` token, or from the ``"mean"`` of the patches, without one.
        rate: dropout, after the positions, within and after each part.
        remat: compute each block again in the backward pass.

    Raises:
        ValueError: the patches do not fill the image, or ``pool`` is another word. When applied: the image
            has another size.
    """
    label = f"vit({image}, {patch}, {classes})"
    size, step = sizes_of(image, 2, f"{label}: image"), sizes_of(patch, 2, f"{label}: patch")
    if any(whole % part for whole, part in zip(size, step, strict=True)):
        raise ValueError(f"{label} needs patches that fill the image, got {step} for an image of {size}")
    if pool not in ("class", "mean"):
        raise ValueError(f"{label} needs pool='class' or 'mean', got {pool!r}")
    ahead = pool == "class"
    tokens = (size[0] // step[0]) * (size[1] // step[1]) + ahead
    normal = jax.nn.initializers.truncated_normal(0.02)
    block = transformer_block(
        dim, attention(dim, heads, rate=rate), feed_forward(dim, hidden or 4 * dim, rate=rate), rate=rate
    )

    @compose(
        patches=conv(channels, dim, step, stride=step, padding="VALID"),
        token=parameter((dim,)) if ahead else identity,
        positions=learned_positions(tokens, dim, embedding_init=normal),
        drop=dropout(rate),
        blocks=repeat(block, depth, remat=remat),
        norm=layer_norm(dim),
        head=dense(dim, classes),
    )
    def vit(m: Any, images: jax.Array) -> jax.Array:
        x = m.patches(images)
        if images.shape[1:3] != size:
            raise ValueError(f"{label} needs images of {size}, got {images.shape[1:3]}")
        x = x.reshape(len(x), -1, dim)
        if ahead:
            first = jnp.broadcast_to(m.token(), (len(x), 1, dim)).astype(x.dtype)
            x = jnp.concatenate([first, x], 1)
        x = m.norm(m.blocks(m.drop(m.positions(x))))
        return m.head(x[:, 0] if ahead else x.mean(1))

    return vit
