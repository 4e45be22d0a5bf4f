"""Hyperparameters as part of the state: scheduled, read back, or changed by hand between updates.

``inject_hyperparams(adam)(learning_rate=schedule, b1=0.9)`` is ``adam`` whose numbers live in its state. The
optimizer is built anew inside every ``update`` from the numbers found there, so they are traced, one compiled
program serves all their values, and ``state.hyperparams["b1"] = 0.8`` takes effect at the next update.

A *stateful schedule* is an object with ``init() -> state``, ``update(state, **extra) -> state`` and
``__call__(state, **extra) -> value``; it may follow the loss, which is one of the extra arguments.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from optax.schedules import (  # type: ignore[import-untyped]
    InjectHyperparamsState,
    InjectStatefulHyperparamsState,
    StatefulSchedule,
)
from optax.schedules._inject import WrappedScheduleState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    Schedule,
    Updates,
)
from purenets.optim.checks import dtype_of
from purenets.optim.combine import with_extra_args_support
from purenets.optim.numerics import safe_increment

__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
]


class WrappedSchedule:
    """A schedule as a stateful one, whose state is the count."""

    def __init__(self, schedule_fn: Schedule):
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """The state before the first update: a count of 0."""
        return WrappedScheduleState(count=jnp.zeros([], jnp.int32))

    def update(self, state: WrappedScheduleState, **_: Any) -> WrappedScheduleState:
        """The state one update on."""
        return WrappedScheduleState(count=safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **_: Any) -> ArrayLike:
        """The value at this count."""
        return self.schedule_fn(state.count)


def _real_dtype(tree: Any) -> Any:
    """The widest real floating point dtype of the leaves; the default one where there is none."""
    dtypes = [dtype_of(leaf) for leaf in jax.tree.leaves(tree)]
    dtypes = [jnp.finfo(dtype).dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
    return functools.reduce(jnp.promote_types, dtypes) if dtypes else jnp.result_type(float)


def _strong(value: Any, dtype: DTypeLike) -> Any:
    """A Python or weakly typed float in the dtype; what has a dtype of its own, or is no float, as it is."""
    if isinstance(value, jax.Array) and not getattr(value, "weak_type", False):
        return value
    is_float = isinstance(value, float) or jnp.issubdtype(getattr(value, "dtype", int), jnp.floating)
    return jnp.asarray(value, dtype) if is_float else value


def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformationExtraArgs]:
    """A factory whose numbers become part of the state of what it makes, and may be schedules.

    Args:
        inner_factory: a factory of transforms, such as ``adam``.
        static_args: arguments that stay out of it; a function that is not a schedule has to be one of them,
            unless it is the factory's own default.
        hyperparam_dtype: the dtype of the numbers in the state; by default the widest of the parameters. In
            bfloat16 a decay of 0.999 is 1: ask for float32 there.

    Returns:
        A factory with the arguments of the inner one. The state has ``count``, ``hyperparams`` (name to the
        value of the last update), ``hyperparams_states`` (of the schedules) and ``inner_state``.

    Raises:
        ValueError: a static argument is none of the factory's.

    >>> from purenets.optim.combine import scale
    >>> optimizer = inject_hyperparams(scale)(step_size=lambda count: -0.5 ** count)
    >>> state = optimizer.init(jnp.zeros(2))
    >>> for _ in range(3):
    ...     updates, state = optimizer.update(jnp.ones(2), state)
    >>> print(updates, state.hyperparams["step_size"])
    [-0.25 -0.25] -0.25
    """
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    if unknown := static - set(signature.parameters):
        raise ValueError(
            f"inject_hyperparams: {sorted(unknown)} are not arguments of the factory; "
            f"it has {list(signature.parameters)}"
        )

    @functools.wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        schedules: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in static or isinstance(value, bool):
                continue
            if isinstance(value, StatefulSchedule):
                schedules[name] = value
            elif callable(value) and name in given:
                schedules[name] = WrappedSchedule(value)
            elif isinstance(value, int | float | jax.Array | np.ndarray | np.number):
                numbers[name] = value

        def build(hyperparams: dict[str, Any]) -> GradientTransformationExtraArgs:
            arguments = inspect.BoundArguments(signature, bound.arguments | hyperparams)  # type: ignore[arg-type]
            return with_extra_args_support(inner_factory(*arguments.args, **arguments.kwargs))

        def init(params: Params) -> InjectStatefulHyperparamsState:
            dtype = _real_dtype(params) if hyperparam_dtype is None else hyperparam_dtype
            states = {name: schedule.init() for name, schedule in schedules.items()}
            hyperparams = {name: jnp.asarray(_strong(value, dtype)) for name, value in numbers.items()}
            for name, schedule in schedules.items():
                hyperparams[name] = jnp.asarray(_strong(schedule(states[name]), dtype))
            return InjectStatefulHyperparamsState(
                count=jnp.zeros([], jnp.int32),
                hyperparams=hyperparams,
                hyperparams_states=states,
                inner_state=build(hyperparams).init(params),
            )

        def update(
            updates: Updates, state: InjectStatefulHyperparamsState, params: Params = None, **extra: Any
        ) -> tuple[Updates, InjectStatefulHyperparamsState]:
            tree = updates if params is None else params
            dtype = _real_dtype(tree) if hyperparam_dtype is None else hyperparam_dtype
            hyperparams = {name: _strong(value, dtype) for name, value in state.hyperparams.items()}
            states = state.hyperparams_states
            for name, schedule in schedules.items():
                hyperparams[name] = jnp.asarray(_strong(schedule(states[name], **extra), dtype))
            updates, inner_state = build(hyperparams).update(updates, state.inner_state, params, **extra)
            return updates, InjectStatefulHyperparamsState(
                count=safe_increment(state.count),
                hyperparams=hyperparams,
                hyperparams_states={
                    name: schedule.update(states[name], **extra) for name, schedule in schedules.items()
                },
                inner_state=inner_state,
            )

        return GradientTransformationExtraArgs(init, update)

    return factory


def inject_stateful_hyperparams(
    inner_factory: Callable[..., GradientTransformation],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformationExtraArgs]:
    """The former name of :func:`inject_hyperparams`, kept as optax keeps it; it warns."""
    warnings.warn(
        "inject_stateful_hyperparams is deprecated: use inject_hyperparams", DeprecationWarning, stacklevel=2
    )
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)
