"""How the users of each library write a training step around a model: one module for each.

Each gives ``(step, carry)`` with ``step(carry, batch) -> (carry, loss)``, jitted and donated where the library's
idiom has that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax

from benchmarks.protocol import Call

__all__ = ["Loop", "over_leaves", "repeated"]

Loop: TypeAlias = tuple[Callable[[Any, Any], tuple[Any, Any]], Any]


def over_leaves(loop: Loop) -> Loop:
    """The same step over a list of the carry's leaves: in and out of a program, a list is quicker than dicts."""
    step, carry = loop
    leaves, treedef = jax.tree.flatten(carry)

    @partial(jax.jit, donate_argnums=0)
    def flat(leaves: list[jax.Array], batch: Any) -> tuple[list[jax.Array], Any]:
        carry, loss = step(jax.tree.unflatten(treedef, leaves), batch)
        return jax.tree.leaves(carry), loss

    return flat, leaves


def repeated(loop: Loop, batch: Any) -> Call:
    """Steps on one batch again and again, each from where the last one ended."""
    step, carry = loop
    held = [carry]
    del carry, loop

    def call() -> Any:
        held[0], loss = step(held[0], batch)
        return loss

    return call
