"""The form that absorbs the bias: each layer one matrix ``Theta [n_out, n_in + 1]`` on ``[1; a]``, bias in column 0."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from purenets.errors import describe
from purenets.layer import Params

__all__ = ["apply_theta", "from_theta", "to_theta"]


def to_theta(params: Params) -> list[jax.Array]:
    """The matrices of an MLP with params ``dense_1``, ``dense_2``, ..., in this order.

    Raises:
        ValueError: a layer is missing, or has no bias.
    """
    found = []
    for i in range(1, len(params) + 1):
        layer = params.get(f"dense_{i}")
        if layer is None or set(layer) != {"kernel", "bias"}:
            raise ValueError(f"to_theta needs dense_{i} with kernel and bias, got {sorted(params)}")
        found.append(jnp.concatenate([layer["bias"][:, None], layer["kernel"].T], 1))
    return found


def from_theta(thetas: Sequence[Any]) -> Params:
    """The params of :func:`purenets.models.mlp` with these matrices.

    Raises:
        ValueError: a matrix does not take what the one before gives.
    """
    for before, after in itertools.pairwise(thetas):
        if after.shape[1] != before.shape[0] + 1:
            raise ValueError(f"Theta needs {before.shape[0]} + 1 columns here, got {describe(after)}")
    return {f"dense_{i}": {"kernel": t[:, 1:].T, "bias": t[:, 0]} for i, t in enumerate(thetas, 1)}


def apply_theta(thetas: Sequence[Any], x: jax.Array, activations: Sequence[Callable[..., Any]]) -> jax.Array:
    """``g_L(Theta_L [1; ... g_1(Theta_1 [1; x])])`` for rows ``[batch, n_in]``."""
    for theta, activation in zip(thetas, activations, strict=True):
        ones = jnp.ones((*x.shape[:-1], 1), x.dtype)
        x = activation(jnp.concatenate([ones, x], -1) @ theta.T)
    return x
