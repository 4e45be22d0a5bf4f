"""Normalisation: subtract a mean, divide by a standard deviation, then a learned scale and bias per feature.

The layers are one function, :func:`normalize`, with different axes to take the statistics over. For an input
``[batch, ..., features]``:

======================  ==============================  ============================
layer                   statistics over                 one mean for each
======================  ==============================  ============================
:func:`batch_norm`      batch and all between           feature
:func:`layer_norm`      features                        example and position
:func:`rms_norm`        features, about zero            example and position
:func:`instance_norm`   all between                     example and feature
:func:`group_norm`      all between, group of features  example and group
======================  ==============================  ============================

The variance is the biased one, 1/n. Statistics are taken in float32 at least and in two passes, so that
neither a bfloat16 input nor a mean that is large beside the deviation spoils them; the output has the dtype
of the input. Params are ``scale [dim]``, at first 1, and ``bias [dim]``, at first 0; each can be left out.
Names and values of ``eps`` are Flax's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.checks import at_least_float32
from purenets.layer import Key, Layer, Params, State, describe, fold_name, layer
from purenets.layers.checks import check_channels, check_last_axis

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "moments", "normalize", "rms_norm"]

Axes: TypeAlias = int | Sequence[int]

_ones = jax.nn.initializers.ones


def moments(x: jax.Array, axes: Axes, axis_name: str | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the axes, which stay with length 1, in float32 at least.

    ``axis_name`` is a mapped axis, of ``jax.vmap`` or ``jax.shard_map``, to take them over too.

    Raises:
        ValueError: the input is of complex numbers.
    """
    x = _wide(x)
    mean = _mean(x, axes, axis_name)
    # Deviations from a constant save the backward pass a sum over x that is zero. The second term is zero too,
    # and keeps the second derivatives right.
    constant = jax.lax.stop_gradient(mean)
    spread = _mean(jnp.square(x - constant), axes, axis_name)
    return mean, spread - jnp.square(mean - constant)


def normalize(x: jax.Array, axes: Axes, eps: float) -> jax.Array:
    """``(x - mean) / sqrt(variance + eps)`` over the axes, in the dtype of the input.

    With an ``eps`` of 0 a constant input divides zero by zero and gives NaN.

    >>> normalize(jnp.array([1.0, 3.0]), 0, eps=0.0).tolist()
    [-1.0, 1.0]
    """
    return _standardize(x, *moments(x, axes), eps).astype(x.dtype)


def _wide(x: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(x):
        raise ValueError(f"normalisation needs real numbers, got {describe(x)}")
    return at_least_float32(x)


def _mean(x: jax.Array, axes: Axes, axis_name: str | None = None) -> jax.Array:
    local = jnp.mean(x, axes, keepdims=True)
    return local if axis_name is None else jax.lax.pmean(local, axis_name)


def _standardize(x: jax.Array, mean: jax.Array | float, var: jax.Array, eps: float) -> jax.Array:
    """In the dtype of the statistics."""
    return (x - mean) * jax.lax.rsqrt(var + eps)


def _affine(
    dim: int, scale: bool, bias: bool, scale_init: Any
) -> tuple[Callable[[Key], Params], Callable[[Params, jax.Array], jax.Array]]:
    """The learned scale and bias that end every layer here: their ``init``, and their action."""

    def init(key: Key) -> Params:
        params = {}
        if scale:
            params["scale"] = scale_init(fold_name(key, "scale"), (dim,), jnp.float32)
        if bias:
            params["bias"] = jnp.zeros((dim,), jnp.float32)
        return params

    def act(params: Params, x: jax.Array) -> jax.Array:
        if scale:
            x = x * params["scale"]
        return x + params["bias"] if bias else x

    return init, act


def batch_norm(
    dim: int,
    *,
    momentum: float = 0.99,
    eps: float = 1e-5,
    scale: bool = True,
    bias: bool = True,
    scale_init: Any = _ones,
    unbiased: bool = False,
    axis_name: str | None = None,
) -> Layer:
    """Normalise each feature over the batch (Ioffe & Szegedy 2015, algorithms 1 and 2).

    In training, mean and variance are those of all axes but the last of what it sees, and the running ones in
    the state, ``mean [dim]`` and ``var [dim]``, move towards them. In evaluation the running ones are used.

    Args:
        dim: features, the size of the last axis.
        momentum: the share of the old running value that stays, as in Flax; torch's is one minus this.
        eps: added to the variance.
        scale: learn a factor per feature.
        bias: learn an offset per feature.
        scale_init: its initial values; zeros lets a residual block begin as the identity.
        unbiased: keep the running variance of 1/(n - 1), as torch does, while still normalising by that of
            1/n. By default both are of 1/n, as in the paper's algorithm 1 and in Flax.
        axis_name: a mapped axis to take statistics over too, for a model applied to one example under
            ``jax.vmap(..., axis_name=...)``. Over a batch sharded by ``jax.jit`` they are global anyway.

    Raises:
        ValueError: the last axis is not ``dim``; the input is not of real floating numbers; or, in training,
            there is only one value per feature.
    """
    label = f"batch_norm({dim})"
    init, _ = _affine(dim, scale, bias, scale_init)

    def start(_key: Key) -> State:
        return {"mean": jnp.zeros((dim,), jnp.float32), "var": jnp.ones((dim,), jnp.float32)}

    def apply(params: Params, state: State, x: jax.Array, *, train: bool) -> tuple[jax.Array, State]:
        check_last_axis(label, x, dim)
        mean, var = state["mean"], state["var"]
        if train:
            count = _count(label, x, axis_name)
            mean, var = (stat.reshape(dim) for stat in moments(x, range(x.ndim - 1), axis_name))
            seen = {"mean": mean, "var": var * (count / (count - 1)) if unbiased else var}
            state = {
                name: (momentum * old + (1 - momentum) * seen[name]).astype(old.dtype)
                for name, old in state.items()
            }
        # One factor per feature, so that the backward pass sums over x once for scale and deviation together.
        factor = jax.lax.rsqrt(var + eps) * (params["scale"] if scale else 1.0)
        y = (x - mean) * factor
        return (y + params["bias"] if bias else y).astype(x.dtype), state

    return layer(init, apply, state=start, label=label)


def _count(label: str, x: jax.Array, axis_name: str | None) -> int:
    """How many values each feature has in the batch; of one alone the variance is 0, whatever it is."""
    members = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    count = math.prod(x.shape[:-1]) * members
    if count < 2:
        error = ValueError(f"{label} needs at least two values per feature in training, got {describe(x)}")
        error.add_note(
            "a single example has no batch statistics: give a larger batch, or train=False; "
            "under jax.vmap give batch_norm the axis_name of the vmap"
        )
        raise error
    return count


def layer_norm(
    dim: int, *, eps: float = 1e-6, scale: bool = True, bias: bool = True, scale_init: Any = _ones
) -> Layer:
    """Normalise each position of each example over its features ``[..., dim]`` (Ba et al. 2016, equation 3).

    Raises:
        ValueError: the last axis is not ``dim``, or the input is not of real floating numbers.
    """

    # Kept for the backward pass is the input alone, which a residual stream keeps anyway: a Transformer's step
    # took 0.97 of its time on CPU.
    @jax.checkpoint
    def standardize(x: jax.Array) -> jax.Array:
        return _standardize(x, *moments(x, -1), eps)

    return _norm(f"layer_norm({dim})", dim, standardize, _affine(dim, scale, bias, scale_init))


def rms_norm(dim: int, *, eps: float = 1e-6, scale: bool = True, scale_init: Any = _ones) -> Layer:
    """Divide each position by the root mean square of its features ``[..., dim]``; nothing is subtracted.

    Zhang & Sennrich 2019, equation 4, with eps under the root.

    Raises:
        ValueError: the last axis is not ``dim``, or the input is not of real floating numbers.
    """

    def standardize(x: jax.Array) -> jax.Array:
        return _standardize(x, 0.0, _mean(jnp.square(_wide(x)), -1), eps)

    return _norm(f"rms_norm({dim})", dim, standardize, _affine(dim, scale, False, scale_init))


def instance_norm(
    dim: int, *, eps: float = 1e-6, scale: bool = True, bias: bool = True, scale_init: Any = _ones
) -> Layer:
    """Normalise each feature of each example over space: ``[batch, ..., dim]`` (Ulyanov et al. 2016).

    Raises:
        ValueError: the last axis is not ``dim``, there is no axis between, or the input is not of real
            floating numbers.
    """
    label = f"instance_norm({dim})"

    def standardize(x: jax.Array) -> jax.Array:
        check_channels(label, x)
        return _standardize(x, *moments(x, range(1, x.ndim - 1)), eps)

    return _norm(label, dim, standardize, _affine(dim, scale, bias, scale_init))


def group_norm(
    dim: int,
    groups: int = 32,
    *,
    eps: float = 1e-6,
    scale: bool = True,
    bias: bool = True,
    scale_init: Any = _ones,
) -> Layer:
    """Normalise each group of neighbouring features of each example over space: ``[batch, ..., dim]``.

    Wu & He 2018. One group is layer normalisation over space and features; ``dim`` groups are
    :func:`instance_norm`.

    Raises:
        ValueError: the groups do not divide ``dim``; the last axis is not ``dim``, there is no batch axis, or
            the input is not of real floating numbers.
    """
    label = f"group_norm({dim}, {groups})"
    if groups < 1 or dim % groups:
        raise ValueError(f"{label} needs a number of groups that divides {dim}, got {groups}")

    def standardize(x: jax.Array) -> jax.Array:
        if x.ndim < 2:
            raise ValueError(f"{label} needs [batch, ..., {dim}], got {describe(x)}")
        grouped = x.reshape(*x.shape[:-1], groups, dim // groups)
        axes = (*range(1, x.ndim - 1), x.ndim)
        return _standardize(grouped, *moments(grouped, axes), eps).reshape(x.shape)

    return _norm(label, dim, standardize, _affine(dim, scale, bias, scale_init))


def _norm(
    label: str, dim: int, standardize: Callable[[jax.Array], jax.Array], affine_pair: tuple[Any, Any]
) -> Layer:
    """A layer without state: standardised, scaled and shifted, in the dtype of the input."""
    init, affine = affine_pair

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_last_axis(label, x, dim)
        return affine(params, standardize(x)).astype(x.dtype)

    return layer(init, apply, label=label)
