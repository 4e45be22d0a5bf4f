"""Haiku: ``transform_with_state``, and a step written as for raw JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import optax

from benchmarks.loops import Loop, raw

__all__ = ["loop", "named"]

_NAMES = {"kernel": "w", "bias": "b"}


def named(weights: Any, prefix: str = "") -> dict[str, Any]:
    """Weights under Haiku's names: two levels, ``w`` and ``b``, of a norm ``scale`` and ``offset``."""
    found: dict[str, Any] = {}
    leaves = {name: value for name, value in weights.items() if not isinstance(value, dict)}
    names = _NAMES | ({"bias": "offset"} if "scale" in weights else {})
    if leaves:
        found[prefix] = {names.get(name, name): value for name, value in leaves.items()}
    for name, value in weights.items():
        if isinstance(value, dict):
            found |= named(value, f"{prefix}/{name}" if prefix else name)
    return found


def loop(
    net: Callable[[jax.Array], jax.Array],
    weights: Any,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = raw.cross_entropy,
    *,
    sample: jax.Array,
) -> Loop:
    """A training step of a function of Haiku's modules whose params have the names of the weights.

    Raises:
        ValueError: the names differ from those that the function makes.
    """
    transformed = hk.without_apply_rng(hk.transform_with_state(net))
    params, state = jax.jit(transformed.init)(jax.random.key(0), sample)
    if jax.tree.map(jax.numpy.shape, params) != jax.tree.map(jax.numpy.shape, weights):
        raise ValueError(f"haiku has {jax.tree.map(jax.numpy.shape, params)}")
    return raw.loop(transformed.apply, weights, state, optimizer, loss)
