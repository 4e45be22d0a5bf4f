"""What is done with updates and parameters outside of a transform: adding, averaging, copying."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from purenets.optim.base import Params, Scalar, Updates, check_trees
from purenets.optim.checks import is_none

__all__ = ["apply_updates", "incremental_update", "periodic_update"]


def apply_updates(params: Params, updates: Updates) -> Params:
    """``params + updates``, each leaf in the dtype of the parameter; a leaf without an update stays as it is.

    Raises:
        ValueError: the trees or the shapes do not agree, with the path of the leaf.

    >>> apply_updates({"w": jnp.bfloat16(1.0)}, {"w": jnp.float32(0.5)})
    {'w': Array(1.5, dtype=bfloat16)}
    """
    check_trees(updates, params, "the parameters", "apply_updates")

    def moved(p: Any, u: Any) -> Any:
        if p is None or u is None:
            return p
        if isinstance(p, jax.Array) and isinstance(u, jax.Array) and p.dtype == u.dtype:
            return lax.add(p, u)
        return jnp.asarray(p + u).astype(jnp.asarray(p).dtype)

    return jax.tree.map(moved, params, updates, is_leaf=is_none)


def incremental_update(new_tensors: Params, old_tensors: Params, step_size: Scalar) -> Params:
    """``step_size new + (1 - step_size) old``: an average of parameters, or a slowly following copy.

    >>> print(incremental_update(jnp.float32(1.0), jnp.float32(0.0), 0.25))
    0.25
    """
    return jax.tree.map(
        lambda new, old: None if new is None else step_size * new + (1 - step_size) * old,
        new_tensors,
        old_tensors,
        is_leaf=is_none,
    )


def periodic_update(new_tensors: Params, old_tensors: Params, steps: Scalar, update_period: Scalar) -> Params:
    """``new`` if ``steps`` is a multiple of ``update_period``, else ``old``: a copy that follows in jumps."""
    due = jnp.mod(steps, update_period) == 0
    return jax.lax.cond(due, lambda: new_tensors, lambda: old_tensors)
