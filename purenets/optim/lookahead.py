"""Lookahead: fast weights explore, slow weights follow every k updates (Zhang et al. 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from optax import LookaheadParams, LookaheadState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    Updates,
)
from purenets.optim.checks import dtype_of
from purenets.optim.combine import with_extra_args_support
from purenets.optim.schedules import _check_known
from purenets.optim.trees import select, without_keys

__all__ = ["LookaheadParams", "LookaheadState", "lookahead"]


def lookahead(
    fast_optimizer: GradientTransformation,
    sync_period: ArrayLike,
    slow_step_size: ArrayLike,
    reset_state: bool = False,
) -> GradientTransformationExtraArgs:
    """A fast optimizer whose every k-th point pulls slow weights towards it, and is then set back to them.

    The parameters are a ``LookaheadParams(fast, slow)``: take gradients at ``params.fast``, evaluate with
    ``params.slow``. At a synchronisation ``slow += slow_step_size (fast - slow)`` and ``fast = slow``. The
    updates must be applied as they are returned.

    Args:
        fast_optimizer: the optimizer of the fast weights.
        sync_period: k, how many fast updates lie between two synchronisations.
        slow_step_size: how far the slow weights go towards the fast ones.
        reset_state: whether the fast optimizer begins anew after each synchronisation.

    Raises:
        ValueError: ``sync_period`` is below 1, or (in ``update``) the parameters are no ``LookaheadParams``.
    """
    _check_known(lambda k: k >= 1, sync_period, "lookahead synchronises every 1, 2, … updates: sync_period")
    fast_optimizer = with_extra_args_support(fast_optimizer)

    def init(params: Params) -> LookaheadState:
        fast = params.fast if isinstance(params, LookaheadParams) else params
        return LookaheadState(fast_state=fast_optimizer.init(fast), steps_since_sync=jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: LookaheadState, params: Params = None, **extra: Any
    ) -> tuple[LookaheadParams, LookaheadState]:
        if not isinstance(params, LookaheadParams):
            raise ValueError(
                f"lookahead needs params=LookaheadParams(fast, slow), got {type(params).__name__}; "
                "begin with LookaheadParams.init_synced(params)"
            )
        updates, fast_state = fast_optimizer.update(updates, state.fast_state, params.fast, **extra)
        sync = state.steps_since_sync == sync_period - 1

        def slow_update(fast: Any, u: Any, slow: Any) -> Any:
            return jnp.where(sync, slow_step_size * (fast + u - slow), 0).astype(dtype_of(u))

        def fast_update(fast: Any, u: Any, slow: Any) -> Any:
            return jnp.where(sync, u - (1 - slow_step_size) * (fast + u - slow), u).astype(dtype_of(u))

        if reset_state:
            bare, with_keys = without_keys(fast_state)
            fresh = without_keys(fast_optimizer.init(params.fast))[0]
            fast_state = with_keys(select(sync, fresh, bare))
        moved = LookaheadParams(
            fast=jax.tree.map(fast_update, params.fast, updates, params.slow),
            slow=jax.tree.map(slow_update, params.fast, updates, params.slow),
        )
        steps = ((state.steps_since_sync + 1) % sync_period).astype(jnp.int32)
        return moved, LookaheadState(fast_state, steps)

    return GradientTransformationExtraArgs(init, update)
