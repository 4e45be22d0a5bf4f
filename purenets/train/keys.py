"""Typed keys as plain arrays and back, for what cannot hold or must not consume a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["without_keys"]


def without_keys(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The tree with the data of keys in their place, and the function that makes them keys again."""

    def is_key(leaf: Any) -> bool:
        return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))

    kinds = jax.tree.map(lambda leaf: str(jax.random.key_impl(leaf)) if is_key(leaf) else "", tree)

    def keyed(bare: Any) -> Any:
        wrap = lambda leaf, kind: jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf
        return jax.tree.map(wrap, bare, kinds)

    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree), keyed
