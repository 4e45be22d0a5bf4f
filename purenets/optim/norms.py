"""Transforms that look at norms: of each leaf, of the parameters, or of the whole gradient.

A *trust ratio* is the norm of a parameter over that of its update, so that each leaf moves by the same
fraction of its own size. A norm is taken of a whole leaf, so these transforms depend on how parameters are
cut into leaves.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Scalar,
    Updates,
    check_rate,
    from_rule,
    leafwise,
    no_state,
    transform,
    zeros_like,
)
from purenets.optim.numerics import (
    abs_sq,
    global_norm,
    narrow,
    safe_increment,
    safe_norm,
    safe_root_mean_squares,
    sum_of_squares,
    wide,
)
from purenets.optim.states import EmptyState, ScaleByDistanceOverGradientsState, ScaleByNovogradState

__all__ = [
    "normalize_by_update_norm",
    "scale_by_distance_over_gradients",
    "scale_by_novograd",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_polyak",
    "scale_by_trust_ratio",
]


def scale_by_trust_ratio(
    min_norm: Scalar = 0.0, trust_coefficient: Scalar = 1.0, eps: Scalar = 0.0
) -> GradientTransformationExtraArgs:
    """Every leaf times ``trust_coefficient |p| / (|u| + eps)`` (You et al. 2017, 2020); 1 where a norm is 0.

    Args:
        min_norm: the least value of either norm.
        trust_coefficient: the size of a step as a fraction of the parameter.
        eps: added to the norm of the update.
    """

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        of_p, of_u = safe_norm(wide(p), min_norm), safe_norm(wide(u), min_norm)
        ratio = trust_coefficient * of_p / (of_u + eps)
        return u * jnp.where((of_p == 0) | (of_u == 0), jnp.ones_like(ratio), ratio).astype(jnp.real(u).dtype)

    return from_rule(rule, with_params=True)


def scale_by_param_block_norm(min_scale: Scalar = 1e-3) -> GradientTransformationExtraArgs:
    """Every leaf times the norm of its parameter, or ``min_scale`` if that is larger."""

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        return u * narrow(safe_norm(wide(p), min_scale), u)

    return from_rule(rule, with_params=True)


def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> GradientTransformationExtraArgs:
    """Every leaf times the root mean square of its parameter, or ``min_scale`` if that is larger."""

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        return u * narrow(safe_root_mean_squares(wide(p), min_scale), u)

    return from_rule(rule, with_params=True)


def normalize_by_update_norm(
    scale_factor: Scalar = 1.0, eps: Scalar = 1e-6
) -> GradientTransformationExtraArgs:
    """The whole update at length ``scale_factor``: ``scale_factor u / (|u| + eps)``, small ones enlarged too.

    Args:
        scale_factor: the length.
        eps: added to the norm, so that a zero update stays zero.
    """

    def update(updates: Updates, state: OptState) -> tuple[Updates, OptState]:
        length = (global_norm(updates) + eps) / scale_factor

        def rule(u: jax.Array) -> jax.Array:
            return u / narrow(length, u)

        return leafwise(rule, updates), state

    return transform(no_state, update)


def scale_by_novograd(
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformationExtraArgs:
    """Momentum of gradients normalised leaf by leaf, with decay inside (Ginsburg et al. 2019, algorithm 1).

    ``v`` is one number a leaf, the average of ``|g|^2``, and starts at the first one;
    ``m <- b1 m + g / (sqrt(v + eps_root) + eps) + weight_decay p`` starts without a past.

    Args:
        b1: how much of the sum stays.
        b2: decay of the average of the squared norm.
        eps: added to the root.
        eps_root: added under the root.
        weight_decay: how much of the parameter is added.
        mu_dtype: the dtype of the sum; that of the parameters by default.
    """

    def init(params: Params) -> ScaleByNovogradState:
        return ScaleByNovogradState(
            count=jnp.zeros([], jnp.int32),
            mu=zeros_like(params, mu_dtype),
            nu=jax.tree.map(lambda p: jnp.zeros([], p.dtype), params),
        )

    def update(
        updates: Updates, state: ScaleByNovogradState, params: Params
    ) -> tuple[Updates, ScaleByNovogradState]:
        count = safe_increment(state.count)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            square = jnp.square(global_norm(g))
            v = jnp.where(count == 1, square, (1 - b2) * square + b2 * v)
            step = g / narrow(jnp.sqrt(v + eps_root) + eps, g) + weight_decay * p
            m = jnp.where(count == 1, step, b1 * m + step).astype(m.dtype)
            return m, m, v

        updates, mu, nu = leafwise(rule, updates, state.mu, state.nu, params, outputs=3)
        return updates, ScaleByNovogradState(count=count, mu=mu, nu=nu)

    return transform(init, update, with_params=True)


def scale_by_distance_over_gradients(
    reps_rel: Scalar = 1e-6,
    eps: Scalar = 1e-8,
    param_dtype: DTypeLike = jnp.float32,
    global_scale: Scalar = 1.0,
) -> GradientTransformationExtraArgs:
    """Layer-wise DoG: the largest distance from the start over the root of the summed squared gradients.

    Ivgi et al. 2023, section 4.1: no learning rate is needed.

    Args:
        reps_rel: the first distance, as a fraction of one plus the norm of the parameter.
        eps: added under the root.
        param_dtype: the dtype in which the start is kept.
        global_scale: a factor of all steps.
    """

    def init(params: Params) -> ScaleByDistanceOverGradientsState:
        return ScaleByDistanceOverGradientsState(
            max_dist=jax.tree.map(lambda p: reps_rel * (1 + jnp.sqrt(jnp.sum(abs_sq(p)))), params),
            grad_sum_of_squares=jax.tree.map(lambda p: jnp.zeros(1), params),
            init_params=jax.tree.map(lambda p: p.astype(param_dtype), params),
        )

    def update(
        updates: Updates, state: ScaleByDistanceOverGradientsState, params: Params
    ) -> tuple[Updates, ScaleByDistanceOverGradientsState]:

        def rule(
            g: jax.Array, far: jax.Array, total: jax.Array, start: jax.Array, p: jax.Array
        ) -> tuple[jax.Array, ...]:
            far = jnp.maximum(far, jnp.sqrt(jnp.sum(abs_sq(p - start))))
            total = total + jnp.sum(abs_sq(g))
            # The sum is kept as an array of one number, as optax keeps it; a step is a number for any shape.
            rate = global_scale * (far / jnp.sqrt(total[0] + eps))
            return g * rate, far, total, start

        updates, *kept = leafwise(
            rule, updates, state.max_dist, state.grad_sum_of_squares, state.init_params, params, outputs=4
        )
        return updates, ScaleByDistanceOverGradientsState(*kept)

    return transform(init, update, with_params=True)


def scale_by_polyak(
    f_min: Scalar = 0.0, max_learning_rate: Scalar = 1.0, eps: Scalar = 0.0, variant: str = "sps"
) -> GradientTransformationExtraArgs:
    """Polyak's step: the gradient times ``(value - f_min) / (|g|^2 + eps)``, at most ``max_learning_rate``.

    Loizou et al. 2021, equation 8. The update needs the loss: ``update(g, state, params, value=loss)``.

    Args:
        f_min: the least value that the loss can take.
        max_learning_rate: the largest step.
        eps: added to the squared norm.
        variant: ``"sps"``, or ``"sps+"``, which never steps uphill when the loss is under ``f_min``.

    Raises:
        ValueError: an unknown variant.
        TypeError: (in ``update``) no value.
    """
    if variant not in ("sps", "sps+"):
        raise ValueError(f"the variant of Polyak's step is 'sps' or 'sps+', got {variant!r}")
    check_rate(max_learning_rate, "max_learning_rate", bound=True)

    def update(
        updates: Updates, state: EmptyState, params: Params = None, *, value: Any = None, **_: Any
    ) -> tuple[Updates, EmptyState]:
        del params
        if value is None:
            raise TypeError(
                "scale_by_polyak needs the loss: call update(gradients, state, params, value=loss)"
            )
        square = sum_of_squares(updates)
        gap = jnp.asarray(value - f_min).astype(square.dtype)
        if variant == "sps+":
            gap = jnp.maximum(gap, 0)
        flat = square + eps <= jnp.finfo(float).eps
        rate = jnp.where(flat, 0.0, jnp.minimum(gap / jnp.where(flat, 1.0, square + eps), max_learning_rate))

        def rule(g: jax.Array) -> jax.Array:
            return narrow(rate, g) * g

        return leafwise(rule, updates), state

    return GradientTransformationExtraArgs(no_state, update)
