"""What may be wrong with rates and trees, and errors that say so with the path of the leaf."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.paths import path_of

__all__ = [
    "aligned",
    "check_float",
    "check_leaves",
    "check_rate",
    "check_trees",
    "dtype_of",
    "is_none",
    "need_params",
    "nth_path",
    "shapes_differ",
]


def need_params(params: Any, who: str) -> None:
    """Raise unless the parameters were given.

    Raises:
        ValueError: ``params`` is None.
    """
    if params is None:
        raise ValueError(f"{who} needs the parameters: call update(gradients, state, params)")


def check_rate(rate: Any, name: str = "learning_rate", *, bound: bool = False) -> None:
    """Raise where a rate cannot be right, as far as that is known before anything runs.

    A schedule is taken on trust, and a traced rate by its shape and dtype: its value is not known yet. Where
    the rate is the ``bound`` of a step that something else chooses, infinity means that there is none.

    Raises:
        ValueError: a Python number that is negative or not finite, or anything that is not a real scalar.
    """
    if rate is None or callable(rate):
        return
    if isinstance(rate, bool | str | bytes):
        raise ValueError(f"{name} must be a number or a schedule, got {rate!r}")
    if isinstance(rate, int | float | np.number):
        if not rate >= 0 or (math.isinf(rate) and not bound):
            raise ValueError(
                f"{name} must be finite and not negative, got {rate!r}; updates already point downhill, "
                "and to climb negate the loss"
            )
        return
    if jnp.shape(rate) != ():
        raise ValueError(
            f"{name} must be a scalar, got {_describe(rate)}; for several runs side by side vmap over "
            "a function that builds the optimizer"
        )
    if not jnp.issubdtype(jnp.result_type(rate), jnp.number) or jnp.iscomplexobj(rate):
        raise ValueError(f"{name} must be real, got {_describe(rate)}")


def check_trees(updates: Any, other: Any, name: str, who: str) -> None:
    """Raise unless every leaf of the updates has a partner of its shape in ``other``; None fits any.

    Args:
        updates: the gradients, or what an earlier transform made of them.
        other: the parameters, or a moment from the state.
        name: what ``other`` is, for the message.
        who: the transform, for the message.

    Raises:
        ValueError: with the path of the first leaf at fault.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    for at, (g, x) in enumerate(zip(leaves, aligned(treedef, updates, other, name, who), strict=True)):
        if g is not None and x is not None and jnp.shape(g) != jnp.shape(x):
            raise ValueError(shapes_differ(who, nth_path(updates, at), g, x, name))


def check_leaves(updates: Any, who: str, real: bool = False) -> None:
    """Raise unless every leaf of the updates is floating point, and not complex where it must be real.

    Raises:
        ValueError: with the path of the first leaf at fault.
    """
    for at, leaf in enumerate(jax.tree.leaves(updates, is_leaf=is_none)):
        if leaf is not None and (real or not jnp.issubdtype(dtype_of(leaf), jnp.inexact)):
            check_float(nth_path(updates, at), leaf, who, real)


def check_float(path: str, g: Any, who: str, real: bool = False) -> None:
    """Raise unless one leaf is floating point, and not complex where it must be real.

    Raises:
        ValueError: with the path.
    """
    if jnp.iscomplexobj(g) and real:
        raise ValueError(
            f"{who}: {path!r} is {_describe(g)}, and the rule has no meaning for complex numbers"
        )
    if not jnp.issubdtype(dtype_of(g), jnp.inexact):
        raise ValueError(
            f"{who}: {path!r} is {_describe(g)}, and only floating point leaves can be optimized; "
            "keep counters and indices out of the parameters, or freeze them"
        )


def aligned(treedef: Any, updates: Any, tree: Any, name: str, who: str) -> Sequence[Any]:
    """What stands in another tree where the updates have a leaf.

    Raises:
        ValueError: the trees differ, with the path of the first leaf that one of them lacks.
    """
    try:
        return treedef.flatten_up_to(tree)
    except ValueError as error:
        ours, theirs = _paths(updates), _paths(tree)
        extra = [p for p in ours if not any(q == p or q.startswith(p + "/") for q in theirs)]
        missing = [q for q in theirs if not any(q == p or q.startswith(p + "/") for p in ours)]
        where = (
            f"{extra[0]!r} is a leaf of the updates only" if extra
            else f"{missing[0]!r} is a leaf of {name} only" if missing
            else f"the containers differ: {error}"
        )  # fmt: skip
        message = f"{who}: the updates and {name} are not the same tree: {where}"
        raise ValueError(message + "; was the state made by init for these parameters?") from None


def shapes_differ(who: str, path: str, g: Any, x: Any, name: str) -> str:
    """The message about a leaf whose shape is another one there."""
    return f"{who}: {path!r} is {_describe(g)} in the updates and {_describe(x)} in {name}"


def dtype_of(x: Any) -> Any:
    """The dtype of a leaf; a Python number is a float, as it is in Python's own arithmetic with one."""
    if isinstance(x, int) and not isinstance(x, bool):
        return jnp.result_type(float)
    return getattr(x, "dtype", None) or jnp.result_type(x)


def _describe(x: Any) -> str:
    return ", ".join(f"{dtype_of(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(x))


def is_none(x: Any) -> bool:
    """Whether there is no leaf: a parameter without a gradient."""
    return x is None


def _paths(tree: Any) -> list[str]:
    return [path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)[0]]


def nth_path(tree: Any, n: int) -> str:
    """The path of a leaf by its number."""
    return _paths(tree)[n]
