"""Transforms that add noise to gradients, to escape bad minima or to keep examples private.

A random transform keeps its key in its state and splits it at every update, so runs with one key are alike.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.optim.base import (
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    Updates,
    check_leaves,
    leafwise,
    transform,
)
from purenets.optim.clipping import per_example_global_norm_clip
from purenets.optim.numerics import narrow, safe_increment
from purenets.optim.states import AddNoiseState, DifferentiallyPrivateAggregateState

__all__ = ["add_noise", "differentially_private_aggregate"]


def _one_of(key: jax.Array | int | None, seed: int | None, who: str) -> jax.Array | int:
    if key is not None and seed is not None:
        raise ValueError(f"{who} takes a key or a seed, not both; got key={key!r} and seed={seed!r}")
    return key if key is not None else 0 if seed is None else seed


def _typed(key: jax.Array | int) -> jax.Array:
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.key(key)


def _noise_like(key: jax.Array, tree: Any) -> Any:
    """Standard normal numbers in the shape, dtype and sharding of every leaf, each from a key of its own."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    draw = jax.random.normal
    return jax.tree.unflatten(
        treedef,
        [
            draw(k, x.shape, x.dtype, out_sharding=jax.typeof(x).sharding)
            for k, x in zip(keys, leaves, strict=True)
        ],
    )


def add_noise(
    eta: Scalar, gamma: Scalar, key: jax.Array | int | None = None, *, seed: int | None = None
) -> GradientTransformationExtraArgs:
    """Normal noise of variance ``eta / t^gamma`` at update ``t = 1, 2, …`` (Neelakantan et al. 2015, eq. 1).

    Args:
        eta: the variance at the first update.
        gamma: how fast it decays; the paper takes 0.55.
        key: a typed key or an integer; 0 by default.
        seed: an integer, an older name of ``key``.

    Raises:
        ValueError: both a key and a seed.
    """
    first = _one_of(key, seed, "add_noise")

    def init(params: Params) -> AddNoiseState:
        del params
        return AddNoiseState(count=jnp.zeros([], jnp.int32), rng_key=_typed(first))

    def update(updates: Updates, state: AddNoiseState) -> tuple[Updates, AddNoiseState]:
        check_leaves(updates, "add_noise")
        count = safe_increment(state.count)
        deviation = jnp.sqrt(eta / count**gamma)
        following, now = jax.random.split(state.rng_key)

        def rule(g: jax.Array, noise: jax.Array) -> jax.Array:
            return g + narrow(deviation, g) * noise

        updates = leafwise(rule, updates, _noise_like(now, updates))
        return updates, AddNoiseState(count=count, rng_key=following)

    return transform(init, update)


def differentially_private_aggregate(
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    key: jax.Array | int | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformationExtraArgs:
    """The private mean of the examples' gradients: clipped, summed, noised (Abadi et al. 2016, algorithm 1).

    Its updates come with a leading axis ``[batch, ...]``, as ``vmap(grad(loss))`` gives them, and leave
    without it, so it stands first in a chain.

    Args:
        l2_norm_clip: the largest norm of one example's gradient.
        noise_multiplier: the standard deviation of the noise over ``l2_norm_clip``.
        key: a typed key or an integer; 0 by default.
        seed: an integer, an older name of ``key``.

    Raises:
        ValueError: both a key and a seed, or (in ``update``) leaves without a common leading axis.
    """
    first = _one_of(key, seed, "differentially_private_aggregate")
    deviation = l2_norm_clip * noise_multiplier

    def init(params: Params) -> DifferentiallyPrivateAggregateState:
        del params
        return DifferentiallyPrivateAggregateState(rng_key=_typed(first))

    def update(
        updates: Updates, state: DifferentiallyPrivateAggregateState
    ) -> tuple[Updates, DifferentiallyPrivateAggregateState]:
        total, _clipped = per_example_global_norm_clip(updates, l2_norm_clip)
        leaves, treedef = jax.tree.flatten(total)
        batch = jax.tree.leaves(updates)[0].shape[0]
        following, *keys = jax.random.split(state.rng_key, len(leaves) + 1)
        noisy = [
            (g + narrow(deviation, g) * jax.random.normal(k, g.shape, g.dtype)) / batch
            for k, g in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, noisy), DifferentiallyPrivateAggregateState(rng_key=following)

    return transform(init, update)
