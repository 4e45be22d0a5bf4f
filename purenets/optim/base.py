"""What every transform is made of: the two types, and one rule per leaf.

A *transform* is a pair ``init(params) -> state``, ``update(updates, state, params) -> (updates, state)``. The
types are optax's own, so that ours and theirs stand in each other's chains; the states are optax's named
tuples (:mod:`purenets.optim.states`), so that a saved state moves between the libraries.

An *update rule* is written for one leaf, ``rule(g, m, v) -> (u, m, v)``, and :func:`leafwise` runs it over
whole trees: the first output is the new update, the others are the new states in the order of the inputs.
XLA then sees one elementwise expression per leaf.

Every ``update`` takes and ignores keyword arguments that it does not know. Hyperparameters may be traced: a
factory looks at their type, never at their value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from optax import (  # type: ignore[import-untyped]
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
)

from purenets.optim.checks import (
    aligned,
    check_float,
    check_leaves,
    check_rate,
    check_trees,
    dtype_of,
    is_none,
    need_params,
    nth_path,
    shapes_differ,
)
from purenets.programs import alike, for_each

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "Mask",
    "MaskedNode",
    "OptState",
    "Params",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "Updates",
    "check_leaves",
    "check_rate",
    "check_trees",
    "from_rule",
    "full_like",
    "leafwise",
    "need_params",
    "no_state",
    "transform",
    "zeros_like",
]

Params: TypeAlias = Any
"""A pytree of floating point arrays."""
Updates: TypeAlias = Any
"""A pytree like the parameters: gradients on the way in, what is added to the parameters on the way out."""
OptState: TypeAlias = Any
"""The state of a transform, a pytree."""
Schedule: TypeAlias = Callable[[ArrayLike], ArrayLike]
"""A hyperparameter as a function of the number of updates made so far: 0 at the first."""
Scalar: TypeAlias = float | jax.Array
"""A hyperparameter: a number, or an array of one number, which may be traced."""
ScalarOrSchedule: TypeAlias = ArrayLike | Schedule
"""A hyperparameter, constant or scheduled."""
Mask: TypeAlias = Any
"""A tree of bools like the parameters or a prefix of them, or a function from the parameters to one."""


def no_state(params: Params) -> EmptyState:
    """The ``init`` of a transform without state."""
    del params
    return EmptyState()


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Zeros in the shape of every leaf, strongly typed, in its own dtype or the given one."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype_of(x) if dtype is None else dtype), tree)


def full_like(tree: Any, value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """One value in the shape of every leaf, strongly typed, in its own dtype or the given one."""
    return jax.tree.map(
        lambda x: jnp.full_like(x, value, dtype=dtype_of(x) if dtype is None else dtype), tree
    )


def leafwise(
    rule: Callable[..., Any], updates: Updates, *trees: Any, outputs: int = 1, real: bool = False
) -> Any:
    """Run a rule written for one leaf over whole trees.

    The rule gets a leaf of the updates and what stands at the same place in every other tree, and returns
    ``outputs`` arrays: the new update, and the new values of the first ``outputs - 1`` trees, which are the
    state and keep their dtype whatever the rule computed in. Trees after those are shaped like the updates.
    Where the updates are None (a parameter without a gradient) the state stays as it is.

    Args:
        rule: the rule; the function it is written in gives its name to error messages.
        updates: a tree of floating point arrays.
        trees: further trees of the same structure, or with a subtree where the updates have a leaf.
        outputs: how many arrays the rule returns; one is returned bare.
        real: whether the rule has no meaning for complex numbers.

    Returns:
        One tree, or a tuple of ``outputs`` trees.

    Raises:
        ValueError: trees that do not fit, a leaf that is not floating point, or shapes that do not agree,
            with the path of the leaf.
    """
    who = rule.__qualname__.partition(".")[0]
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    names = ["the state"] * (outputs - 1) + ["the parameters"] * (len(trees) - outputs + 1)
    columns = [aligned(treedef, updates, tree, name, who) for tree, name in zip(trees, names, strict=True)]
    rows = list(zip(leaves, *columns, strict=True))
    made: list[Any] = [None] * len(rows)
    for places in alike(rows):
        some, path = [rows[at] for at in places], partial(nth_path, updates, places[0])
        g, *others = some[0]
        if g is None:
            done = [row[:outputs] for row in some]
        else:
            if not jnp.issubdtype(dtype_of(g), jnp.floating) and (real or not jnp.iscomplexobj(g)):
                check_float(path(), g, who, real)
            for x in others[outputs - 1 :]:
                if jnp.shape(x) != jnp.shape(g):
                    raise ValueError(shapes_differ(who, path(), g, x, "the parameters"))
            done = for_each(partial(_kept, rule, outputs, names, who, path), some)
        for at, row in zip(places, done, strict=True):
            made[at] = row
    results = tuple(jax.tree.unflatten(treedef, [row[i] for row in made]) for i in range(outputs))
    return results if outputs > 1 else results[0]


def _kept(
    rule: Callable[..., Any],
    outputs: int,
    names: Sequence[str],
    who: str,
    path: Callable[[], str],
    g: Any,
    *others: Any,
) -> tuple[Any, ...]:
    """What the rule makes of one leaf, the state in the dtype of the old one, whose shape it must have."""
    g = g if hasattr(g, "dtype") else jnp.asarray(g, dtype_of(g))
    try:
        out = rule(g, *others)
    except TypeError as error:
        if not others or all(jnp.shape(x) == jnp.shape(g) for x in jax.tree.leaves(others)):
            raise
        raise ValueError(shapes_differ(who, path(), g, others[0], names[0])) from error
    new, *states = out if outputs > 1 else (out,)
    if jnp.shape(new) != jnp.shape(g):
        raise ValueError(shapes_differ(who, path(), g, others[0] if others else new, "the state"))

    def keep(n: Any, o: Any) -> Any:
        if isinstance(n, jax.Array) and isinstance(o, jax.Array) and jax.typeof(n) == jax.typeof(o):
            return n
        if jnp.shape(n) != jnp.shape(o):
            raise ValueError(shapes_differ(who, path(), g, o, "the state"))
        return jnp.asarray(n).astype(dtype_of(o))

    return (new, *(jax.tree.map(keep, n, o) for n, o in zip(states, others, strict=False)))


def transform(
    init: Callable[[Params], OptState],
    update: Callable[..., tuple[Updates, OptState]],
    *,
    with_params: bool = False,
) -> GradientTransformationExtraArgs:
    """The transform of an ``init`` and an ``update(updates, state)`` or ``update(updates, state, params)``.

    Raises:
        ValueError: (in ``update``) it needs the parameters and they are missing.
    """
    who = update.__qualname__.partition(".")[0]

    def with_any(
        updates: Updates, state: OptState, params: Params = None, **_: Any
    ) -> tuple[Updates, OptState]:
        if not with_params:
            return update(updates, state)
        need_params(params, who)
        return update(updates, state, params)

    return GradientTransformationExtraArgs(init, with_any)


def from_rule(
    rule: Callable[..., Any], *, with_params: bool = False, real: bool = False
) -> GradientTransformationExtraArgs:
    """The transform without state that runs ``rule(g)`` or ``rule(g, p)`` on every leaf; ``real`` as above.

    Raises:
        ValueError: (in ``update``) the rule needs the parameters and they are missing.
    """

    def update(updates: Updates, state: OptState, *params: Params) -> tuple[Updates, OptState]:
        return leafwise(rule, updates, *params, real=real), state

    update.__qualname__ = rule.__qualname__
    return transform(no_state, update, with_params=with_params)
