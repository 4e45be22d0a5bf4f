"""Affine maps between features and heads: ``[..., dim]`` and ``[..., heads, head_dim]``.

Params have Flax's names and shapes (``DenseGeneral``), initial values are those of a dense layer of as many
inputs and units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenets.layer import Key, Layer, Params, describe, fold_name, layer
from purenets.layers.checks import check_floating, check_sequence

__all__ = ["from_heads", "head_sizes", "to_heads"]

_lecun = jax.nn.initializers.lecun_normal()


def to_heads(n_in: int, heads: int, head_dim: int, *, bias: bool = True, kernel_init: Any = _lecun) -> Layer:
    """An affine map into heads: ``[batch, time, n_in]`` to ``[batch, time, heads, head_dim]``.

    Params are ``kernel [n_in, heads, head_dim]`` and ``bias [heads, head_dim]``. Initial values are those of
    a dense layer of ``heads * head_dim`` units.

    Raises:
        ValueError: the input is not ``[batch, time, n_in]``.
    """
    label = f"to_heads({n_in}, {heads}, {head_dim})"
    init = _affine_init((n_in,), (heads, head_dim), bias, kernel_init)

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_sequence(label, x, n_in)
        y = jnp.tensordot(x, params["kernel"], 1)
        return y + params["bias"] if bias else y

    return layer(init, apply, label=label)


def from_heads(
    heads: int, head_dim: int, n_out: int, *, bias: bool = True, kernel_init: Any = _lecun
) -> Layer:
    """An affine map of all heads together: ``[batch, time, heads, head_dim]`` to ``[batch, time, n_out]``.

    Params are ``kernel [heads, head_dim, n_out]`` and ``bias [n_out]``.

    Raises:
        ValueError: the input does not end in ``[heads, head_dim]``.
    """
    label = f"from_heads({heads}, {head_dim}, {n_out})"
    init = _affine_init((heads, head_dim), (n_out,), bias, kernel_init)

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_floating(label, x)
        if x.shape[-2:] != (heads, head_dim):
            raise ValueError(f"{label} needs [..., {heads}, {head_dim}], got {describe(x)}")
        y = jnp.tensordot(x, params["kernel"], 2)
        return y + params["bias"] if bias else y

    return layer(init, apply, label=label)


def _affine_init(
    n_in: tuple[int, ...], n_out: tuple[int, ...], bias: bool, kernel_init: Any
) -> Callable[[Key], Params]:
    def init(key: Key) -> Params:
        flat = (math.prod(n_in), math.prod(n_out))
        kernel = kernel_init(fold_name(key, "kernel"), flat, jnp.float32)
        params = {"kernel": kernel.reshape(*n_in, *n_out)}
        return {**params, "bias": jnp.zeros(n_out, jnp.float32)} if bias else params

    return init


def head_sizes(
    name: str, dim: int, heads: int, kv_heads: int | None, head_dim: int | None
) -> tuple[int, int]:
    """How many heads the keys have, and how wide a head is.

    Raises:
        ValueError: the heads do not divide the features and no width is given, or the kv_heads the heads.
    """
    if heads < 1 or (head_dim is None and dim % heads):
        raise ValueError(f"{name}({dim}, {heads}) needs a number of heads that divides {dim}, or a head_dim")
    kv_heads = heads if kv_heads is None else kv_heads
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(
            f"{name}({dim}, {heads}) needs a number of kv_heads that divides {heads}, got {kv_heads}"
        )
    return kv_heads, head_dim or dim // heads
