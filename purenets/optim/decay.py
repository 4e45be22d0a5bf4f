"""Transforms that pull parameters or repair gradients: weight decay, centring, sign constraints, NaN.

*Decoupled* weight decay adds a part of the parameter to the update after the adaptive step (Loshchilov and
Hutter 2019); put before it, the same transform is L2 regularisation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.optim.base import (
    EmptyState,
    GradientTransformationExtraArgs,
    Mask,
    OptState,
    Params,
    ScalarOrSchedule,
    Updates,
    from_rule,
    leafwise,
    no_state,
    transform,
)
from purenets.optim.masking import masked
from purenets.optim.numerics import narrow, safe_increment
from purenets.optim.states import WeightDecaySchedule, ZeroNansState
from purenets.paths import path_of

__all__ = [
    "add_decayed_weights",
    "centralize",
    "error_if_not_finite",
    "keep_params_nonnegative",
    "zero_nans",
]


def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None
) -> GradientTransformationExtraArgs:
    """``u + weight_decay p``.

    Args:
        weight_decay: a number, or a schedule over the number of updates made.
        mask: which leaves decay: a tree of bools like the parameters or a prefix of them, or a function that
            makes one from the parameters; all by default.

    Raises:
        ValueError: (in ``update``) the parameters are missing.
    """

    def init(params: Params) -> OptState:
        del params
        return WeightDecaySchedule(jnp.zeros([], jnp.int32)) if callable(weight_decay) else EmptyState()

    def update(updates: Updates, state: OptState, params: Params) -> tuple[Updates, OptState]:
        rate: Any = weight_decay(state.count) if callable(weight_decay) else weight_decay

        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            return u + narrow(rate, p) * p

        updates = leafwise(rule, updates, params)
        return updates, WeightDecaySchedule(safe_increment(state.count)) if callable(weight_decay) else state

    everywhere = transform(init, update, with_params=True)
    return everywhere if mask is None else masked(everywhere, mask)


def centralize() -> GradientTransformationExtraArgs:
    """A leaf of two or more axes minus its mean over all but the first (Yong et al. 2020, equation 1)."""

    def rule(g: jax.Array) -> jax.Array:
        return g - g.mean(tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g

    return from_rule(rule)


def keep_params_nonnegative() -> GradientTransformationExtraArgs:
    """Updates that would make an entry negative bring it to zero instead; the last transform of a chain.

    Raises:
        ValueError: (in ``update``) the parameters are missing.
    """

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        return jnp.where(p + u < 0, -p, u)

    return from_rule(rule, with_params=True, real=True)


def zero_nans() -> GradientTransformationExtraArgs:
    """Every NaN replaced by 0; the state tells in which leaves there was one."""

    def init(params: Params) -> ZeroNansState:
        return ZeroNansState(found_nan=jax.tree.map(lambda p: jnp.array(False), params))

    def update(updates: Updates, state: ZeroNansState) -> tuple[Updates, ZeroNansState]:
        def rule(g: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
            nan = jnp.isnan(g)
            return jnp.where(nan, jnp.zeros_like(g), g), jnp.any(nan)

        updates, found = leafwise(rule, updates, state.found_nan, outputs=2)
        return updates, ZeroNansState(found_nan=found)

    return transform(init, update)


def error_if_not_finite() -> GradientTransformationExtraArgs:
    """The updates as they are, and an error that names the leaves where one is NaN or infinite.

    It works inside ``jit``, ``scan`` and ``vmap`` too, where the error comes out as JAX's own with this text
    in it. Every step calls the host: this is for finding the place, ``apply_if_finite`` for living with it.

    Raises:
        FloatingPointError: (in ``update``) with the path of every such leaf and how many numbers it concerns.
    """

    def update(updates: Updates, state: OptState) -> tuple[Updates, OptState]:
        leaves = jax.tree_util.tree_flatten_with_path(updates)[0]
        paths = [path_of(path) for path, _ in leaves]
        sizes = [jnp.size(x) for _, x in leaves]

        def report(bad: Any) -> None:
            found = [
                f"{path!r} ({n} of {size})" for path, n, size in zip(paths, bad, sizes, strict=True) if n
            ]
            if found:
                raise FloatingPointError(
                    "error_if_not_finite: NaN or infinity in the updates of " + ", ".join(found)
                )

        jax.debug.callback(report, [jnp.sum(~jnp.isfinite(x)) for _, x in leaves])
        return updates, state

    return transform(no_state, update)
