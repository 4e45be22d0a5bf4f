"""Adam and its relatives: an average of the gradient over the root of an average of its square.

With ``m <- b1 m + (1 - b1) g`` and ``v <- b2 v + (1 - b2) g^2``, both zero at first, and the bias corrections
``c1 = 1 - b1^t`` and ``c2 = 1 - b2^t`` of update ``t = 1, 2, …`` (Kingma and Ba 2015, algorithm 1)::

    u = (m / c1) / (sqrt(v / c2 + eps_root) + eps)

``eps`` is outside the root as in the paper, ``eps_root`` inside it, where it also bounds the derivative of
the update. Moved out of the arrays, the corrections leave one division and one root for each number::

    u = (sqrt(c2) / c1) m / (sqrt(v + c2 eps_root) + sqrt(c2) eps)
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    Updates,
    leafwise,
    transform,
    zeros_like,
)
from purenets.optim.numerics import abs_sq, bias_of, narrow, safe_increment
from purenets.optim.states import ScaleByAdamState, ScaleByAmsgradState

__all__ = [
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "scale_by_radam",
]


def first_average(
    b1: Scalar, count: jax.Array, nesterov: bool, factor: Scalar = 1.0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The corrected first average ``(g, m) -> factor m_hat`` of one leaf at update ``count``.

    With ``nesterov`` it is ``b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)``, the average one gradient
    ahead (Dozat 2016, algorithm 2, with a constant b1).
    """
    c1 = bias_of(b1, count)
    if not nesterov:
        whole = factor / c1
        return lambda g, m: narrow(whole, m) * m
    past, now = factor * b1 / bias_of(b1, safe_increment(count)), factor * (1 - b1) / c1
    return lambda g, m: narrow(past, m) * m + narrow(now, m) * g


def corrected_step(
    b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar, count: jax.Array, nesterov: bool
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """The step ``(g, m, v) -> u`` of one leaf at update ``count``, as in the module's text."""
    c2 = bias_of(b2, count)
    root = jnp.sqrt(c2)
    top = first_average(b1, count, nesterov, root)
    inside, outside = eps_root * c2, eps * root
    plain = isinstance(eps_root, float | int) and eps_root == 0

    def step(g: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        under_root = v if plain else v + narrow(inside, v)
        return top(g, m) / (jnp.sqrt(under_root) + narrow(outside, v))

    return step


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam's direction (Kingma and Ba 2015, algorithm 1), or Nadam's (Dozat 2016).

    Args:
        b1: decay of the average of the gradient.
        b2: decay of the average of its square.
        eps: added to the root.
        eps_root: added under the root.
        mu_dtype: the dtype of the first average; that of the parameters by default.
        nesterov: whether to look one gradient ahead, which makes it Nadam.
    """

    def init(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(
            count=jnp.zeros([], jnp.int32), mu=zeros_like(params, mu_dtype), nu=zeros_like(params)
        )

    def update(updates: Updates, state: ScaleByAdamState) -> tuple[Updates, ScaleByAdamState]:
        count = safe_increment(state.count)
        step = corrected_step(b1, b2, eps, eps_root, count, nesterov)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = (1 - b1) * g + b1 * m, (1 - b2) * abs_sq(g) + b2 * v
            return step(g, m, v), m, v

        updates, mu, nu = leafwise(rule, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return transform(init, update)


def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformationExtraArgs:
    """Adam over the largest second average so far (Reddi et al. 2018, algorithm 2).

    The paper corrects no bias: that is ``bias_correction_mu=False, bias_correction_nu=False``. With
    correction the maximum is taken over the corrected averages.

    Args:
        b1: decay of the average of the gradient.
        b2: decay of the average of its square.
        eps: added to the root.
        eps_root: added under the root.
        mu_dtype: the dtype of the first average; that of the parameters by default.
        bias_correction_mu: whether to correct the first average.
        bias_correction_nu: whether to correct the second average, before the maximum.
    """

    def init(params: Params) -> ScaleByAmsgradState:
        return ScaleByAmsgradState(
            count=jnp.zeros([], jnp.int32),
            mu=zeros_like(params, mu_dtype),
            nu=zeros_like(params),
            nu_max=zeros_like(params),
        )

    def update(updates: Updates, state: ScaleByAmsgradState) -> tuple[Updates, ScaleByAmsgradState]:
        count = safe_increment(state.count)
        c1, c2 = bias_of(b1, count), bias_of(b2, count)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array, top: jax.Array) -> tuple[jax.Array, ...]:
            m, v = (1 - b1) * g + b1 * m, (1 - b2) * abs_sq(g) + b2 * v
            m_hat = m / narrow(c1, m) if bias_correction_mu else m
            top = jnp.maximum(top, v / narrow(c2, v) if bias_correction_nu else v)
            return m_hat / (jnp.sqrt(top + eps_root) + eps), m, v, top

        updates, mu, nu, nu_max = leafwise(rule, updates, state.mu, state.nu, state.nu_max, outputs=4)
        return updates, ScaleByAmsgradState(count=count, mu=mu, nu=nu, nu_max=nu_max)

    return transform(init, update)


def scale_by_adamax(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformationExtraArgs:
    """Adam over a decayed maximum ``v <- max(|g| + eps, b2 v)`` (Kingma and Ba 2015, algorithm 2).

    Args:
        b1: decay of the average of the gradient.
        b2: decay of the maximum.
        eps: added to the gradient's magnitude, so that the maximum is never zero.
    """

    def init(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros_like(params), nu=zeros_like(params))

    def update(updates: Updates, state: ScaleByAdamState) -> tuple[Updates, ScaleByAdamState]:
        count = safe_increment(state.count)
        c1 = bias_of(b1, count)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = (1 - b1) * g + b1 * m, jnp.maximum(jnp.abs(g) + eps, b2 * v)
            return m / (narrow(c1, m) * v), m, v

        updates, mu, nu = leafwise(rule, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return transform(init, update)


def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam whose adaptive rate is rectified, and left out while its variance is too large (Liu et al. 2020).

    Args:
        b1: decay of the average of the gradient.
        b2: decay of the average of its square.
        eps: added to the root.
        eps_root: added under the root.
        threshold: the length of the averaged history from which on the second average is used.
        nesterov: whether to look one gradient ahead.
    """
    longest = 2.0 / (1.0 - b2) - 1.0

    def init(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros_like(params), nu=zeros_like(params))

    def update(updates: Updates, state: ScaleByAdamState) -> tuple[Updates, ScaleByAdamState]:
        count = safe_increment(state.count)
        power = b2**count
        length = longest - 2 * count * power / (1 - power)
        rectifier = jnp.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        step = corrected_step(b1, b2, eps, eps_root, count, nesterov)
        plain = first_average(b1, count, nesterov)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = (1 - b1) * g + b1 * m, (1 - b2) * abs_sq(g) + b2 * v
            rectified = narrow(rectifier, m) * step(g, m, v)
            return jnp.where(length >= threshold, rectified, plain(g, m)), m, v

        updates, mu, nu = leafwise(rule, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return transform(init, update)
