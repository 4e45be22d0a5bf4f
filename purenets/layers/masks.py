"""Masks: which query sees which key.

A mask is boolean, true where a query sees a key, and broadcasts to ``[batch, heads, time, source]``: *time*
counts queries, *source* keys. Several masks together are their conjunction. A query that sees no key at all
gets zeros, the sum over nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.layer import describe

__all__ = ["both", "check_mask", "near_mask", "padding_mask", "segment_mask", "visible"]


def near_mask(queries: jax.Array, keys: jax.Array, *, causal: bool, window: int | None = None) -> jax.Array:
    """What positions ``[batch, time]`` see of positions ``[batch, source]``: ``[batch, 1, time, source]``.

    Args:
        queries: the positions of the queries.
        keys: the positions of the keys.
        causal: nothing later is seen.
        window: only what is nearer than this is seen; of 1 a query sees its own position alone.

    >>> near_mask(jnp.arange(3)[None], jnp.arange(3)[None], causal=True, window=2)[0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    ago = queries[:, None, :, None] - keys[:, None, None, :]
    seen = ago >= 0 if causal else jnp.ones_like(ago, bool)
    return seen if window is None else seen & (jnp.abs(ago) < window)


def padding_mask(lengths: jax.Array, source: int) -> jax.Array:
    """The first ``lengths [batch]`` keys of ``source`` are seen: ``[batch, 1, 1, source]``."""
    return jnp.arange(source) < lengths[:, None, None, None]


def segment_mask(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Ids ``[batch, time]`` and ``[batch, source]``: a query sees the keys that have its id.

    So that several sequences packed into one row do not see each other.
    """
    return queries[:, None, :, None] == keys[:, None, None, :]


def both(*masks: jax.Array | None) -> jax.Array | None:
    """The conjunction of those masks that there are."""
    seen = None
    for mask in masks:
        if mask is not None:
            seen = mask if seen is None else seen & mask
    return seen


def visible(
    time: int,
    source: int,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array | None:
    """All that limits what is seen as one mask, or None where everything is."""
    near = None
    if causal or window is not None:
        near = near_mask(jnp.arange(time)[None], jnp.arange(source)[None], causal=causal, window=window)
    return both(near, None if lengths is None else padding_mask(lengths, source), mask)


def check_mask(label: str, mask: Any, shape: tuple[int, int, int, int]) -> None:
    """Refuse a mask that is not boolean or does not broadcast to ``[batch, heads, time, source]``."""
    if mask is None:
        return
    sizes = jnp.shape(mask)
    fits = len(sizes) == 4 and all(size in (1, full) for size, full in zip(sizes, shape, strict=True))
    if fits and jnp.result_type(mask) == jnp.bool_:
        return
    error = ValueError(
        f"{label} needs a boolean mask that broadcasts to [batch, heads, time, source] = {list(shape)}, "
        f"got {describe(jnp.asarray(mask))}"
    )
    if fits:
        error.add_note("numbers of 0 and 1 become a mask by mask.astype(bool); others are no mask")
    elif sizes == (shape[0], shape[3]):
        error.add_note("which tokens count is mask[:, None, None, :], or lengths [batch]")
    elif sizes in ((shape[0], shape[2], shape[3]), (shape[2], shape[3])):
        error.add_note("write an axis of 1 for what it is the same for: mask[..., None, :, :] for all heads")
    raise error
