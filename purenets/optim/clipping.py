"""Transforms that bound a gradient, by value or by a norm.

A gradient longer than the bound is shortened and keeps its direction, one within it is left as it is; which
norm is measured makes the difference: of all leaves together (*global*), of one leaf (*block*), of the
weights of one unit (*adaptive*), or of each example before the mean over the batch (*per example*).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    OptState,
    Scalar,
    Updates,
    from_rule,
    leafwise,
    no_state,
    transform,
)
from purenets.optim.numerics import abs_sq, global_norm, narrow, wide
from purenets.paths import path_of

__all__ = [
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "unitwise_norm",
]


def clip(max_delta: Scalar) -> GradientTransformationExtraArgs:
    """Every entry within ``[-max_delta, max_delta]``."""

    def rule(g: jax.Array) -> jax.Array:
        bound = narrow(max_delta, g)
        return jnp.clip(g, -bound, bound)

    return from_rule(rule, real=True)


def clip_by_block_rms(threshold: Scalar) -> GradientTransformationExtraArgs:
    """Every leaf with a root mean square of at most ``threshold`` (Shazeer and Stern 2018, section 6)."""

    def rule(g: jax.Array) -> jax.Array:
        rms = jnp.sqrt(jnp.mean(abs_sq(wide(g)))) if g.size else 0.0
        return g / narrow(jnp.maximum(1.0, rms / threshold), g)

    return from_rule(rule)


def clip_by_global_norm(max_norm: Scalar) -> GradientTransformationExtraArgs:
    """The whole gradient with a norm of at most ``max_norm`` (Pascanu et al. 2013, algorithm 1).

    Every leaf is multiplied by ``max_norm / norm`` where the norm of all leaves together is not smaller than
    ``max_norm``. One NaN anywhere makes every entry NaN, which :func:`purenets.optim.zero_nans` before it or
    ``apply_if_finite`` around it takes care of.
    """

    def update(updates: Updates, state: OptState) -> tuple[Updates, OptState]:
        norm = global_norm(updates)
        factor = jnp.where(norm < max_norm, jnp.ones_like(norm), max_norm / norm)

        def rule(g: jax.Array) -> jax.Array:
            return g * narrow(factor, g)

        return leafwise(rule, updates), state

    return transform(no_state, update)


def _unit_norm(x: jax.Array, axis: int | tuple[int, ...] | None) -> jax.Array:
    """The norm over each unit, with axes of length one where it was summed."""
    if axis is None:
        kernels: dict[int, tuple[int, ...]] = {2: (0,), 3: (0,), 4: (0, 1, 2), 5: (0, 1, 2, 3)}
        if jnp.squeeze(x).ndim <= 1:
            axis = tuple(range(x.ndim))
        elif x.ndim in kernels:
            axis = kernels[x.ndim]
        else:
            raise ValueError(
                f"unitwise_norm knows kernels of up to five axes, got {list(x.shape)}; pass axis="
            )
    return jnp.sqrt(jnp.sum(abs_sq(x), axis=axis, keepdims=True))


def unitwise_norm(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The norm of the weights into each output unit, in the shape of ``x``.

    The last axis counts the units of a kernel ``[in, out]`` or ``[height, width, in, out]``, the last two
    those of ``[in, heads, dim]``; a vector or a scalar is one unit.

    Args:
        x: an array.
        axis: the axes to sum over, where the default by rank does not fit.

    Raises:
        ValueError: more than five axes and no ``axis``.
    """
    return jnp.broadcast_to(_unit_norm(x, axis), x.shape)


def adaptive_grad_clip(
    clipping: Scalar, eps: Scalar = 1e-3, axis: int | tuple[int, ...] | None = None
) -> GradientTransformationExtraArgs:
    """A unit's gradient at most ``clipping`` times as long as its weights (Brock et al. 2021, equation 3).

    Args:
        clipping: the largest ratio.
        eps: the least norm of weights, so that zero weights can move.
        axis: the axes over which a unit extends, see :func:`unitwise_norm`.
    """

    def rule(g: jax.Array, p: jax.Array) -> jax.Array:
        norm = _unit_norm(g, axis)
        most = clipping * jnp.maximum(_unit_norm(p, axis), eps)
        return g * jnp.where(norm < most, jnp.ones_like(norm), most / jnp.maximum(norm, 1e-6)).astype(g.dtype)

    return from_rule(rule, with_params=True)


def _batch(gradients: Updates, who: str) -> int:
    leaves = jax.tree_util.tree_flatten_with_path(gradients)[0]
    sizes = {x.shape[0] if x.ndim else -1 for _, x in leaves}
    if len(sizes) != 1 or -1 in sizes:
        shapes = ", ".join(f"{path_of(path)} {list(x.shape)}" for path, x in leaves)
        raise ValueError(
            f"{who} needs gradients [batch, ...] with one batch for every leaf, as vmap(grad(loss)) gives "
            f"them; got {shapes or 'no leaves'}"
        )
    return sizes.pop()


def per_example_global_norm_clip(grads: Updates, l2_norm_clip: Scalar) -> tuple[Updates, jax.Array]:
    """The sum of the examples' gradients, each with a norm of at most ``l2_norm_clip`` (Abadi et al. 2016).

    Args:
        grads: a tree of ``[batch, ...]``.
        l2_norm_clip: the largest norm of one example's gradient over all leaves.

    Returns:
        The sum, and how many examples were clipped.

    Raises:
        ValueError: the leaves have no common leading axis.
    """
    _batch(grads, "per_example_global_norm_clip")
    norms = jax.vmap(global_norm)(grads)
    factors = jnp.where(norms > 0, jnp.minimum(l2_norm_clip / norms, 1.0), 1.0)
    total = jax.tree.map(lambda g: jnp.tensordot(factors.astype(jnp.result_type(g, 1.0)), g, axes=1), grads)
    return total, jnp.sum(factors < 1)


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: Scalar, uniform: bool = True
) -> tuple[Updates, Updates]:
    """The same leaf by leaf, each with its share of the squared bound (McMahan et al. 2018, section 3).

    Args:
        grads: a tree of ``[batch, ...]``.
        global_l2_norm_clip: the largest norm of one example's gradient over all leaves.
        uniform: whether leaves have equal shares, or shares in proportion to their sizes.

    Returns:
        The sum, and for each leaf how many examples were clipped.

    Raises:
        ValueError: the leaves have no common leading axis.
    """
    batch = _batch(grads, "per_example_layer_norm_clip")
    leaves, treedef = jax.tree.flatten(grads)
    entries = [x.size // max(batch, 1) for x in leaves]
    shares = [1 / len(leaves) if uniform else n / max(sum(entries), 1) for n in entries]
    clipped = [
        per_example_global_norm_clip(x, global_l2_norm_clip * share**0.5)
        for x, share in zip(leaves, shares, strict=True)
    ]
    return jax.tree.unflatten(treedef, [total for total, _ in clipped]), jax.tree.unflatten(
        treedef, [n for _, n in clipped]
    )
