"""The next token from its logits ``[batch, size]``: the likeliest, or drawn.

Before drawing, logits are divided by a *temperature*, and all but the likeliest tokens can be taken out:
:func:`keep_top_k` leaves a number of them (Fan et al. 2018), :func:`keep_top_p` as many as hold a share of the
probability (Holtzman et al. 2020). What is taken out has the logit minus infinity. Of tokens exactly as likely
as the last one that stays, all stay.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.checks import at_least_float32
from purenets.layer import Key

__all__ = ["choose", "keep_top_k", "keep_top_p"]


def keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """The ``k`` largest logits ``[..., size]``, the rest minus infinity.

    Raises:
        ValueError: there are not so many.

    >>> keep_top_k(jnp.array([1.0, 3.0, 2.0]), 2).tolist()
    [-inf, 3.0, 2.0]
    """
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"keep_top_k has {logits.shape[-1]} logits, got a k of {k}")
    least = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits < least, -jnp.inf, logits)


def keep_top_p(logits: jax.Array, p: Any) -> jax.Array:
    """The fewest of the largest logits ``[..., size]`` that together have probability ``p`` at least.

    >>> keep_top_p(jnp.log(jnp.array([0.2, 0.5, 0.3])), 0.6)
    Array([      -inf, -0.6931472, -1.2039728], dtype=float32)
    """
    ordered = -jnp.sort(-logits, axis=-1)
    shares = jax.nn.softmax(ordered)
    # A token is needed while those before it do not have p yet; so the first always is.
    needed = jnp.cumsum(shares, -1) - shares < p
    needed = needed.at[..., 0].set(True)
    least = jnp.min(jnp.where(needed, ordered, jnp.inf), -1, keepdims=True)
    return jnp.where(logits < least, -jnp.inf, logits)


def choose(
    logits: jax.Array,
    key: Key | None = None,
    *,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
) -> jax.Array:
    """A token of each row of ``[batch, size]``: drawn with the key, or without one the likeliest.

    A row with a NaN gives -1, which is no token.
    """
    logits = at_least_float32(logits)
    broken = jnp.isnan(logits).any(-1)
    if key is None:
        tokens = jnp.argmax(logits, -1)
    else:
        logits = logits / temperature
        logits = logits if top_k is None else keep_top_k(logits, top_k)
        logits = logits if top_p is None else keep_top_p(logits, top_p)
        tokens = jax.random.categorical(key, logits)
    return jnp.where(broken, -1, tokens).astype(jnp.int32)
