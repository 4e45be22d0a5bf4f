"""Layers on the last axis: an affine map, and its two halves for one feature at a time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.layer import Key, Layer, Params, fold_name, layer
from purenets.layers.checks import check_last_axis
from purenets.layers.narrow import multiply

__all__ = ["bias", "dense", "scale"]


def dense(
    n_in: int,
    n_out: int,
    *,
    bias: bool = True,
    kernel_init: Any = jax.nn.initializers.lecun_normal(),
    bias_init: Any = jax.nn.initializers.zeros,
) -> Layer:
    """An affine map of the last axis: ``[..., n_in]`` to ``[..., n_out]``.

    Params are ``kernel [n_in, n_out]`` and ``bias [n_out]``, as in Flax. Initial values follow Flax too:
    truncated normal of variance 1 / n_in (LeCun et al. 1998) and zeros.

    Raises:
        ValueError: the last axis is not ``n_in``, or the input is of integers.

    >>> model = dense(3, 2)
    >>> params, state = model.init(jax.random.key(0))
    >>> model.apply(params, state, jnp.ones((5, 3)))[0].shape
    (5, 2)
    """
    label = f"dense({n_in}, {n_out})"

    def init(key: Key) -> Params:
        params = {"kernel": kernel_init(fold_name(key, "kernel"), (n_in, n_out), jnp.float32)}
        if bias:
            params["bias"] = bias_init(fold_name(key, "bias"), (n_out,), jnp.float32)
        return params

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_last_axis(label, x, n_in)
        y = multiply(x, params["kernel"])
        return y + params["bias"] if bias else y

    return layer(init, apply, label=label)


def scale(dim: int, *, scale_init: Any = jax.nn.initializers.ones) -> Layer:
    """A learned factor for each feature: ``[..., dim]`` to the same.

    The parameter is ``scale [dim]``, at first 1. Small values at the end of a residual branch let a deep
    network begin near the identity (Touvron et al. 2021, LayerScale).

    Raises:
        ValueError: the last axis is not ``dim``, or the input is of integers.
    """
    label = f"scale({dim})"

    def init(key: Key) -> Params:
        return {"scale": scale_init(fold_name(key, "scale"), (dim,), jnp.float32)}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_last_axis(label, x, dim)
        return x * params["scale"]

    return layer(init, apply, label=label)


def bias(dim: int, *, bias_init: Any = jax.nn.initializers.zeros) -> Layer:
    """A learned offset for each feature: ``[..., dim]`` to the same.

    The parameter is ``bias [dim]``, at first 0.

    Raises:
        ValueError: the last axis is not ``dim``, or the input is of integers.
    """
    label = f"bias({dim})"

    def init(key: Key) -> Params:
        return {"bias": bias_init(fold_name(key, "bias"), (dim,), jnp.float32)}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_last_axis(label, x, dim)
        return x + params["bias"]

    return layer(init, apply, label=label)
