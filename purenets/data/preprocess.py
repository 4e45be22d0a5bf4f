"""Data made ready: standardised, whitened, labels to unit vectors and back.

What is learned from the training data is a small dict of arrays, applied to any data by a pure function.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from purenets.checks import concrete
from purenets.errors import describe

__all__ = ["from_one_hot", "standardise", "standardiser", "to_one_hot", "whiten", "whitener"]


def standardiser(x: jax.Array, *, eps: float = 1e-8) -> dict[str, jax.Array]:
    """Mean and deviation of each feature, ``[n, ...]`` to ``mean`` and ``deviation [...]``.

    The deviation is that of 1/n; a feature that does not vary has the deviation 1, so that it becomes 0.

    Raises:
        ValueError: there is not one example.
    """
    if jnp.ndim(x) < 1 or not len(x):
        raise ValueError(f"standardiser needs [n, ...] with examples, got {describe(x)}")
    deviation = x.std(0)
    return {"mean": x.mean(0), "deviation": jnp.where(deviation > eps, deviation, 1.0)}


def standardise(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Mean 0 and deviation 1 for each feature of the data that ``params`` are of."""
    return (x - params["mean"]) / params["deviation"]


def whitener(x: jax.Array, *, eps: float = 1e-5) -> dict[str, jax.Array]:
    """What makes features uncorrelated and of variance 1, turning them as little as possible (ZCA).

    ``[n, features]`` to ``mean [features]`` and the symmetric ``matrix [features, features]``, the inverse root of the
    covariance plus ``eps``.

    Raises:
        ValueError: the data are not ``[n, features]`` with two examples at least.
    """
    if jnp.ndim(x) != 2 or len(x) < 2:
        raise ValueError(f"whitener needs [n, features] of two examples or more, got {describe(x)}")
    mean = x.mean(0)
    values, vectors = jnp.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return {"mean": mean, "matrix": vectors / jnp.sqrt(jnp.maximum(values, 0) + eps) @ vectors.T}


def whiten(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """The data without their mean, times the matrix of :func:`whitener`."""
    return (x - params["mean"]) @ params["matrix"]


def to_one_hot(labels: jax.Array, classes: int) -> jax.Array:
    """Labels ``[...]`` as unit vectors, float32 ``[..., classes]``.

    Raises:
        ValueError: a label is not an integer, or known not to be one of ``0 .. classes - 1``.
    """
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"to_one_hot needs integer labels, got {describe(jnp.asarray(labels))}")
    known = concrete(labels)
    if known is not None and np.size(known) and not 0 <= np.min(known) <= np.max(known) < classes:
        raise ValueError(
            f"labels of {classes} classes go from 0 to {classes - 1}, got {np.min(known)} to {np.max(known)}"
        )
    return jax.nn.one_hot(labels, classes)


def from_one_hot(scores: jax.Array) -> jax.Array:
    """The class of the largest score, int32 ``[...]``; the first of several."""
    return jnp.argmax(scores, -1).astype(jnp.int32)
