"""Transforms made of transforms, and the smallest transforms themselves.

A *transform* is a pair ``init(params) -> state`` and ``update(updates, state, params) -> (updates, state)``
(optax's protocol and optax's types). What goes in first is the gradient; what comes out last is added to the
parameters. A transform that *takes extra arguments* has an ``update`` that accepts any keyword argument and
uses those that it knows; all of ours do, so a chain may be handed ``value=loss`` whatever it is made of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from optax import ScaleByScheduleState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    ScalarOrSchedule,
    Schedule,
    Updates,
    check_leaves,
    check_rate,
    no_state,
)
from purenets.optim.numerics import safe_increment

__all__ = [
    "chain",
    "identity",
    "named_chain",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "set_to_zero",
    "stateless",
    "stateless_with_tree_map",
    "with_extra_args_support",
]


def _stateless(rule: Callable[[Updates, Params], Updates]) -> GradientTransformationExtraArgs:
    def update(
        updates: Updates, state: OptState, params: Params = None, **_: Any
    ) -> tuple[Updates, OptState]:
        return rule(updates, params), state

    return GradientTransformationExtraArgs(no_state, update)


def with_extra_args_support(tx: GradientTransformation) -> GradientTransformationExtraArgs:
    """The same transform with an ``update`` that drops keyword arguments it would not accept."""
    if isinstance(tx, GradientTransformationExtraArgs):
        return tx

    def update(
        updates: Updates, state: OptState, params: Params = None, **_: Any
    ) -> tuple[Updates, OptState]:
        return tx.update(updates, state, params)

    return GradientTransformationExtraArgs(tx.init, update)


def identity() -> GradientTransformationExtraArgs:
    """The transform that changes nothing."""
    return _stateless(lambda updates, params: updates)


def set_to_zero() -> GradientTransformationExtraArgs:
    """The transform whose updates are all zero, so that what it is applied to stays where it is."""
    return _stateless(lambda updates, params: jax.tree.map(jnp.zeros_like, updates))


def stateless(f: Callable[[Updates, Params], Updates]) -> GradientTransformationExtraArgs:
    """The transform ``f(updates, params) -> updates``, which keeps nothing between steps."""
    return _stateless(f)


def stateless_with_tree_map(f: Callable[[Any, Any], Any]) -> GradientTransformationExtraArgs:
    """The transform ``f(update, param)`` of every leaf, ``param`` being ``None`` where none are given."""

    def rule(updates: Updates, params: Params) -> Updates:
        if params is None:
            return jax.tree.map(lambda u: f(u, None), updates)
        return jax.tree.map(f, updates, params)

    return _stateless(rule)


def chain(*args: GradientTransformation) -> GradientTransformationExtraArgs:
    """One transform after another; the state is the tuple of their states.

    Raises:
        ValueError: (in ``update``) the state is not that of these transforms.

    >>> optimizer = chain(scale(2.0), scale(-0.1))
    >>> updates, _ = optimizer.update(jnp.float32(1.0), optimizer.init(jnp.float32(0.0)))
    >>> print(updates)
    -0.2
    """
    transforms = tuple(with_extra_args_support(tx) for tx in args)

    def init(params: Params) -> tuple[Any, ...]:
        return tuple(tx.init(params) for tx in transforms)

    def update(
        updates: Updates, state: OptState, params: Params = None, **extra: Any
    ) -> tuple[Updates, tuple[Any, ...]]:
        if len(state) != len(transforms):
            raise ValueError(
                f"chain of {len(transforms)} transforms was given a state of {len(state)} parts; "
                "make it with this chain's own init"
            )
        states = []
        for tx, part in zip(transforms, state, strict=True):
            updates, part = tx.update(updates, part, params, **extra)
            states.append(part)
        return updates, tuple(states)

    return GradientTransformationExtraArgs(init, update)


def named_chain(*args: tuple[str, GradientTransformation]) -> GradientTransformationExtraArgs:
    """One transform after another; the state is an ordered dict of their states, by name.

    Raises:
        ValueError: two transforms have one name, or (in ``update``) the state has other names.

    >>> optimizer = named_chain(("direction", identity()), ("rate", scale(-0.1)))
    >>> list(optimizer.init(jnp.float32(0.0)))
    ['direction', 'rate']
    """
    names = [name for name, _ in args]
    if len(set(names)) != len(names):
        raise ValueError(f"named_chain needs a different name for every transform, got {names}")
    transforms = OrderedDict((name, with_extra_args_support(tx)) for name, tx in args)

    def init(params: Params) -> OrderedDict[str, Any]:
        return OrderedDict((name, tx.init(params)) for name, tx in transforms.items())

    def update(
        updates: Updates, state: OptState, params: Params = None, **extra: Any
    ) -> tuple[Updates, OrderedDict[str, Any]]:
        if set(state) != set(names):
            raise ValueError(f"named_chain of {names} was given a state of {list(state)}")
        states = OrderedDict()
        for name, tx in transforms.items():
            updates, states[name] = tx.update(updates, state[name], params, **extra)
        return updates, states

    return GradientTransformationExtraArgs(init, update)


def _scaled(step_size: ArrayLike, updates: Updates) -> Updates:
    """The scaled updates in their own dtypes: a float32 rate must not widen a bfloat16 update."""

    @cache
    def same(dtype: Any) -> Any:
        """The step size as one number of that dtype, or None where it is not one."""
        number = np.asarray(step_size, dtype) if isinstance(step_size, float | int) else step_size
        fits = jnp.issubdtype(dtype, jnp.inexact) and getattr(number, "dtype", None) == dtype
        return number if fits and jnp.ndim(number) == 0 else None

    def scaled(u: Any) -> Any:
        if isinstance(u, jax.Array) and (number := same(u.dtype)) is not None:
            return lax.mul(u, number)  # without promotion, which would be most of the tracing
        new, dtype = step_size * u, jnp.result_type(u)
        floating = jnp.issubdtype(dtype, jnp.inexact)
        return jnp.asarray(new, dtype) if floating and jnp.result_type(new) != dtype else new

    return jax.tree.map(scaled, updates)


def scale(step_size: ArrayLike) -> GradientTransformationExtraArgs:
    """Every update times one number, which may be traced."""
    return _stateless(lambda updates, params: _scaled(step_size, updates))


def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformationExtraArgs:
    """Every update times ``step_size_fn(count)``, where count is 0 at the first update, then 1, 2, …"""

    def init(params: Params) -> ScaleByScheduleState:
        del params
        return ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: ScaleByScheduleState, params: Params = None, **_: Any
    ) -> tuple[Updates, ScaleByScheduleState]:
        del params
        step_size = step_size_fn(state.count)
        return _scaled(step_size, updates), ScaleByScheduleState(count=safe_increment(state.count))

    return GradientTransformationExtraArgs(init, update)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformationExtraArgs:
    """The last step of an optimizer: times ``-learning_rate``, a number, a schedule, or ``None`` for nothing.

    ``flip_sign=False`` keeps the sign, for a transform that another one negates.

    Raises:
        ValueError: the rate is negative, not finite or not a scalar, or (in ``update``) a leaf is no floating
            point array, with its path.
    """
    if learning_rate is None:
        return identity()
    check_rate(learning_rate)
    sign = -1 if flip_sign else 1
    if callable(learning_rate):
        inner = scale_by_schedule(lambda count: sign * learning_rate(count))
    else:
        inner = scale(sign * learning_rate)

    def update(
        updates: Updates, state: OptState, params: Params = None, **_: Any
    ) -> tuple[Updates, OptState]:
        check_leaves(updates, "scale_by_learning_rate")
        return inner.update(updates, state, params)

    return GradientTransformationExtraArgs(inner.init, update)
