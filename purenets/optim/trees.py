"""Whole trees as one vector: inner products and norms, and trees made to agree in dtype.

Sums over leaves are taken in their order, each leaf's in its own dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenets.optim.checks import dtype_of
from purenets.optim.numerics import abs_sq

__all__ = [
    "cast_like",
    "concrete",
    "copied",
    "dot",
    "gathered",
    "lowest_dtype",
    "select",
    "squared_norm",
    "sum_abs",
    "total",
    "without_keys",
]


def cast_like(tree: Any, like: Any) -> Any:
    """The tree in the dtypes of another of its structure, so that both may be branches of one ``cond``."""
    return jax.tree.map(
        lambda x, y: x if dtype_of(x) == dtype_of(y) else jnp.asarray(x, dtype_of(y)), tree, like
    )


def without_keys(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The tree with the bare data of its random keys, and the way back.

    Where one of two trees is selected, its keys count as used by the branch that was not taken; their data do
    not, so what passes a ``cond`` or a ``where`` goes without.
    """
    impls = [jax.random.key_impl(x) if _is_key(x) else None for x in jax.tree.leaves(tree)]

    def back(bare: Any) -> Any:
        leaves, treedef = jax.tree.flatten(bare)
        wrapped = [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(leaves, impls, strict=True)
        ]
        return jax.tree.unflatten(treedef, wrapped)

    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree), back


def select(condition: Any, yes: Any, no: Any) -> Any:
    """``jnp.where`` of whole trees without keys, in the dtypes of the second."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(dtype_of(b)), yes, no)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(dtype_of(x), jax.dtypes.prng_key)


def copied(tree: Any) -> Any:
    """The tree in new memory, so that it may be donated together with the old one; shapes stay shapes."""
    return jax.tree.map(
        lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else jnp.array(x, dtype=dtype_of(x), copy=True),
        tree,
    )


def gathered(x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """An array that is whole on every device, and the way back to how it was cut.

    For products of a matrix with itself, which on an explicit mesh have no sharding of their own. Elsewhere
    the partitioner sees to it and the array stays as it is.
    """
    spec = jax.typeof(x).sharding.spec
    if all(axis is None for axis in spec):
        return x, lambda y: y
    whole = jax.sharding.PartitionSpec(*[None] * x.ndim)
    return jax.sharding.reshard(x, whole), lambda y: jax.sharding.reshard(y, spec)


def concrete(tree: Any) -> Any:
    """The tree with zeros where there are only shapes, for an ``init`` that looks at values."""
    return jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, tree
    )


def dot(x: Any, y: Any) -> jax.Array:
    """The inner product of two trees, the first one conjugated."""
    return total(jax.tree.map(lambda a, b: jnp.conj(a) * b, x, y))


def squared_norm(tree: Any) -> jax.Array:
    """The sum of the squared moduli of all entries."""
    squares = [jnp.sum(abs_sq(jnp.asarray(x))) for x in jax.tree.leaves(tree)]
    return jnp.asarray(sum(squares)) if squares else jnp.zeros([])


def total(tree: Any) -> jax.Array:
    """The sum of all entries."""
    sums = [jnp.sum(x) for x in jax.tree.leaves(tree)]
    return jnp.asarray(sum(sums)) if sums else jnp.zeros([])


def sum_abs(tree: Any) -> jax.Array:
    """The sum of the moduli of all entries."""
    return total(jax.tree.map(jnp.abs, tree))


def lowest_dtype(tree: Any) -> Any:
    """The narrowest real floating point dtype of the leaves; the default one where there is none.

    A scalar of it times a leaf never widens the leaf.
    """
    dtypes = [dtype_of(leaf) for leaf in jax.tree.leaves(tree)]
    dtypes = [jnp.finfo(dtype).dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
    return functools.reduce(_narrower, dtypes) if dtypes else jnp.result_type(float)


def _narrower(a: Any, b: Any) -> Any:
    return a if jnp.promote_types(a, b) == b else b
