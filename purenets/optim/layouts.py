"""The tree in another form for the transform inside: all leaves as one vector."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
    check_leaves,
    check_trees,
)
from purenets.optim.combine import with_extra_args_support

__all__ = ["flatten"]


def flatten(inner: GradientTransformation) -> GradientTransformationExtraArgs:
    """The transform over one vector that holds all leaves, in the dtype that holds them all.

    Inside there is one leaf: the norm of a leaf is the norm of all, and masks by name or rank find nothing.
    """
    inner = with_extra_args_support(inner)

    def vector(tree: Any) -> jax.Array:
        leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
        return jnp.concatenate(leaves) if leaves else jnp.zeros([0])

    def init(params: Params) -> OptState:
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
            return inner.init(jax.eval_shape(vector, params))
        return inner.init(vector(params))

    def update(
        updates: Updates, state: OptState, params: Params = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        check_leaves(updates, "flatten")
        if params is not None:
            check_trees(updates, params, "the parameters", "flatten")
        flat = None if params is None else vector(params)
        new, state = inner.update(vector(updates), state, flat, **extra)
        leaves, treedef = jax.tree.flatten(updates)
        ends = [0]
        for leaf in leaves:
            ends.append(ends[-1] + jnp.size(leaf))
        pieces = [
            new[begin:end].reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf))
            for leaf, begin, end in zip(leaves, ends, ends[1:], strict=False)
        ]
        return jax.tree.unflatten(treedef, pieces), state

    return GradientTransformationExtraArgs(init, update)
