"""L-BFGS: the inverse Hessian from the last few steps, never formed.

BFGS keeps an approximation ``P`` of the inverse Hessian and, after a step ``s`` that changed the gradient by
``y``, makes it agree with what was seen (``P y = s``) by an update of rank two, with ``rho = 1 / (s . y)``:

    ``P <- (I - rho s y^T) P (I - rho y s^T) + rho s s^T``

L-BFGS remembers only the last ``memory_size`` pairs ``(s, y)`` and multiplies the gradient by the ``P`` that
they would give, starting from a multiple of the identity, in two loops over the pairs (Nocedal 1980; Nocedal
and Wright, Numerical Optimization, algorithms 7.4 and 7.5).

The memory is a ring: pair ``k`` lies at ``k % memory_size``, stacked on a new leading axis of every leaf.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from optax import ScaleByLBFGSState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    ScalarOrSchedule,
    Updates,
    check_leaves,
    check_trees,
    need_params,
    zeros_like,
)
from purenets.optim.combine import chain, identity, scale, scale_by_learning_rate
from purenets.optim.numerics import global_norm, safe_increment, sum_of_squares
from purenets.optim.second_order.line_search import scale_by_zoom_linesearch
from purenets.optim.second_order.trees import add_scaled, cast_like, dot, scaled

__all__ = ["lbfgs", "scale_by_lbfgs", "two_loop"]

Tree = Any


def two_loop(
    vector: Tree, steps: Tree, changes: Tree, rhos: jax.Array, identity_scale: ArrayLike, oldest: ArrayLike
) -> Tree:
    """The vector multiplied by the inverse Hessian of BFGS after these pairs.

    Args:
        vector: what to multiply; a gradient.
        steps: the differences of the parameters, ``[memory, ...]`` in every leaf.
        changes: the differences of the gradients, likewise.
        rhos: one over the inner product of each pair, ``[memory]``; 0 for a pair that is not to count.
        identity_scale: what the identity is multiplied by in the matrix to start from.
        oldest: where in the ring the oldest pair lies.
    """
    order = (oldest + jnp.arange(rhos.shape[0])) % rhos.shape[0]

    def pair(k: Any) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, k, keepdims=False), (steps, changes))

    def back(v: Tree, k: Any) -> tuple[Tree, jax.Array]:
        s, y = pair(k)
        alpha = rhos[k] * dot(s, v)
        return add_scaled(v, -alpha, y), alpha

    def forth(v: Tree, k_alpha: Any) -> tuple[Tree, None]:
        k, alpha = k_alpha
        s, y = pair(k)
        return add_scaled(v, alpha - rhos[k] * dot(y, v), s), None

    vector, alphas = jax.lax.scan(back, vector, order, reverse=True)
    return jax.lax.scan(forth, scaled(identity_scale, vector), (order, alphas))[0]


def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> GradientTransformationExtraArgs:
    """Multiply the gradient by the inverse Hessian of L-BFGS.

    The learning rate that follows is naturally 1; a line search with the Wolfe conditions keeps the pairs'
    inner products, and with them the matrix, positive.

    Args:
        memory_size: how many pairs are remembered.
        scale_init_precond: start from the identity times ``(s . y) / (y . y)`` of the last pair (Nocedal and
            Wright, equation 7.20) and, at the first step, times ``min(1, 1 / |g|)``; otherwise from the
            identity.

    Raises:
        ValueError: ``memory_size`` is below 1; in ``update``, parameters that are missing or do not fit.
    """
    if memory_size < 1:
        raise ValueError(f"memory_size must be >= 1, got {memory_size}")

    def init(params: Params) -> ScaleByLBFGSState:
        ring = jax.tree.map(lambda x: jnp.broadcast_to(x, (memory_size, *x.shape)), zeros_like(params))
        return ScaleByLBFGSState(
            count=jnp.asarray(0, jnp.int32),
            params=zeros_like(params),
            updates=zeros_like(params),
            diff_params_memory=ring,
            diff_updates_memory=ring,
            weights_memory=jnp.zeros(memory_size),
        )

    def update(
        updates: Updates, state: ScaleByLBFGSState, params: Params = None, **_: Any
    ) -> tuple[Updates, OptState]:
        need_params(params, "scale_by_lbfgs")
        check_trees(updates, params, "the parameters", "scale_by_lbfgs")
        check_leaves(updates, "scale_by_lbfgs")
        started = state.count > 0
        since = lambda x, old: jax.tree.map(lambda a, b: jnp.where(started, a - b, 0), x, old)
        s, y = since(params, state.params), since(updates, state.updates)
        sy, yy = dot(y, s), sum_of_squares(y)
        rho = jnp.where(sy == 0, 0.0, 1 / sy)

        newest = (state.count - 1) % memory_size
        remember = lambda ring, x: jax.lax.dynamic_update_index_in_dim(ring, x.astype(ring.dtype), newest, 0)
        steps = jax.tree.map(remember, state.diff_params_memory, s)
        changes = jax.tree.map(remember, state.diff_updates_memory, y)
        rhos = remember(state.weights_memory, rho)

        first = jnp.minimum(1.0, 1 / global_norm(updates))
        gamma = jnp.where(started, jnp.where(yy > 0, sy / yy, 1.0), first) if scale_init_precond else 1.0
        direction = two_loop(updates, steps, changes, rhos, gamma, state.count % memory_size)
        return direction, ScaleByLBFGSState(
            safe_increment(state.count),
            cast_like(params, state.params),
            cast_like(updates, state.updates),
            steps,
            changes,
            rhos,
        )

    return GradientTransformationExtraArgs(init, update)


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformationExtraArgs | GradientTransformation | None = scale_by_zoom_linesearch(
        max_linesearch_steps=20, initial_guess_strategy="one"
    ),
) -> GradientTransformationExtraArgs:
    """L-BFGS with a line search, one step of it at each update (Liu and Nocedal 1989).

    ``update`` takes ``value``, ``grad`` and ``value_fn``, see :mod:`purenets.optim.second_order.line_search`.
    To minimise a function once and for all, :func:`purenets.optim.minimize` is simpler and makes fewer
    evaluations.

    Args:
        learning_rate: a constant or schedule that multiplies the direction before the line search.
        memory_size: how many pairs of steps and gradient changes are remembered.
        scale_init_precond: see :func:`scale_by_lbfgs`.
        linesearch: what chooses the step; None leaves it to ``learning_rate``.
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
