"""Sharpness-aware minimisation: descend by the gradient at the worst point nearby (Foret et al. 2021).

An *adversarial* optimizer climbs from the point ``sync_period - 1`` times; the gradient found there is
given to the outer optimizer at the point itself. *Transparent*, every call of ``update`` is one of these
steps, and the parameters wander up and back. *Opaque*, one call does all of them, with gradients from
``grad_fn``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import NormalizeState, SAMState  # type: ignore[import-untyped]

from purenets.optim.apply import apply_updates
from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    Updates,
    check_trees,
    leafwise,
    need_params,
    no_state,
    transform,
)
from purenets.optim.combine import with_extra_args_support
from purenets.optim.numerics import global_norm, narrow
from purenets.optim.trees import cast_like, copied, select, without_keys

__all__ = ["NormalizeState", "SAMState", "normalize", "sam"]


def normalize() -> GradientTransformationExtraArgs:
    """The gradient over its norm; where it is zero it stays zero."""

    def update(updates: Updates, state: NormalizeState) -> tuple[Updates, NormalizeState]:
        norm = global_norm(updates)
        norm = jnp.where(norm > 0, norm, 1)

        def rule(g: jax.Array) -> jax.Array:
            return g / narrow(norm, g)

        return leafwise(rule, updates), state

    update.__qualname__ = "normalize.update"
    return transform(no_state, update)


def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> GradientTransformationExtraArgs:
    """An outer optimizer that sees the gradient at an adversary's point.

    For the form of the paper: ``sam(sgd(rate), chain(normalize(), sgd(rho)))``.

    Args:
        optimizer: the outer optimizer.
        adv_optimizer: the adversary, given as a minimiser: its updates are turned around.
        sync_period: how many gradients make one outer step.
        reset_state: whether the adversary begins anew after each outer step.
        opaque_mode: whether one ``update`` makes the whole step, with ``grad_fn(params, i)`` as an argument.
        batch_axis_name: the axis over which ``grad_fn``'s gradients are averaged, in opaque mode.

    Raises:
        ValueError: ``sync_period`` is below 1, or (in ``update``) ``grad_fn`` or the parameters are missing.
    """
    if sync_period < 1:
        raise ValueError(f"sam makes an outer step every 1, 2, … gradients, got sync_period={sync_period}")
    optimizer, adv_optimizer = with_extra_args_support(optimizer), with_extra_args_support(adv_optimizer)

    def init(params: Params) -> SAMState:
        return SAMState(
            steps_since_sync=jnp.zeros([], jnp.int32),
            opt_state=optimizer.init(params),
            adv_state=adv_optimizer.init(params),
            cache=None if opaque_mode else copied(params),
        )

    def climb(gradient: Updates, state: Any, params: Params, extra: dict[str, Any]) -> tuple[Updates, Any]:
        down, state = adv_optimizer.update(gradient, state, params, **extra)
        return jax.tree.map(jnp.negative, down), state

    def transparent(
        updates: Updates, state: SAMState, params: Params = None, **extra: Any
    ) -> tuple[Updates, SAMState]:
        need_params(params, "sam")
        check_trees(updates, params, "the parameters", "sam")
        first, last = state.steps_since_sync == 0, state.steps_since_sync == sync_period - 1
        kept, with_keys = without_keys(state.opt_state)
        climber, climber_keys = without_keys(state.adv_state)
        up, adv_state = climb(updates, climber_keys(climber), params, extra)
        # With a period of 1 the first gradient is also the last, and the point is where we are.
        centre = select(first, params, state.cache)
        down, opt_state = optimizer.update(updates, with_keys(kept), centre, **extra)
        back = jax.tree.map(lambda c, p, u: c - p + u, centre, params, down)
        fresh = without_keys(adv_optimizer.init(params))[0] if reset_state else climber
        return cast_like(select(last, back, up), updates), SAMState(
            steps_since_sync=((state.steps_since_sync + 1) % sync_period).astype(jnp.int32),
            opt_state=with_keys(select(last, without_keys(opt_state)[0], kept)),
            adv_state=climber_keys(select(last, fresh, cast_like(without_keys(adv_state)[0], climber))),
            cache=centre,
        )

    def opaque(
        updates: Updates, state: SAMState, params: Params = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[Updates, SAMState]:
        need_params(params, "sam")
        check_trees(updates, params, "the parameters", "sam")
        if grad_fn is None:
            raise ValueError("sam in opaque mode needs gradients: call update(..., grad_fn=grad_fn)")
        point, gradient, adv_state = params, updates, state.adv_state
        for i in range(sync_period - 1):
            up, adv_state = climb(gradient, adv_state, point, extra)
            point = apply_updates(point, up)
            gradient = grad_fn(point, i)
            if batch_axis_name is not None:
                gradient = jax.lax.pmean(gradient, axis_name=batch_axis_name)
        down, opt_state = optimizer.update(gradient, state.opt_state, params, **extra)
        return down, SAMState(
            steps_since_sync=jnp.zeros([], jnp.int32),
            opt_state=opt_state,
            adv_state=adv_optimizer.init(params) if reset_state else adv_state,
            cache=None,
        )

    return GradientTransformationExtraArgs(init, opaque if opaque_mode else transparent)
