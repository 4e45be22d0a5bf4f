"""Learning without labels, or with few: k-means, principal components, self-training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.errors import describe
from purenets.layer import Key

__all__ = ["PCA", "KMeans", "fit_kmeans", "fit_pca", "self_training"]


class KMeans(NamedTuple):
    """Centres ``[k, features]``, the centre of each example ``[n]``, and the sum of squared distances."""

    centres: jax.Array
    labels: jax.Array
    inertia: jax.Array


def _squares(x: jax.Array, centres: jax.Array) -> jax.Array:
    return jnp.sum((x[:, None] - centres) ** 2, -1)


def fit_kmeans(
    x: jax.Array, k: int, key: Key | None = None, *, centres: jax.Array | None = None, steps: int = 100
) -> KMeans:
    """Centres in the middle of what is nearest to them (Lloyd 1982), begun far apart (k-means++, 2007).

    Give a ``key`` to draw the first centres, or the ``centres`` themselves. A centre that nothing is nearest to stays.

    Raises:
        ValueError: the data are not ``[n, features]`` with n at least k, or neither a key nor centres are given.
    """
    if jnp.ndim(x) != 2 or not 0 < k <= len(x):
        raise ValueError(f"fit_kmeans needs [n, features] with at least k = {k} examples, got {describe(x)}")
    if centres is None and key is None:
        raise ValueError("fit_kmeans needs a key to draw the first centres, or the centres")
    start = _far_apart(key, x, k) if centres is None else centres

    def step(centres: jax.Array, _: None) -> tuple[jax.Array, None]:
        member = jax.nn.one_hot(jnp.argmin(_squares(x, centres), 1), k, dtype=x.dtype)
        count = member.sum(0)[:, None]
        return jnp.where(count > 0, member.T @ x / jnp.maximum(count, 1), centres), None

    found, _ = jax.lax.scan(step, start, None, length=steps)
    squares = _squares(x, found)
    return KMeans(found, jnp.argmin(squares, 1), squares.min(1).sum())


def _far_apart(key: Any, x: jax.Array, k: int) -> jax.Array:
    first, *keys = jax.random.split(key, k)
    centres = jnp.broadcast_to(x[jax.random.randint(first, (), 0, len(x))], (k, x.shape[1]))
    for i, one in enumerate(keys, 1):
        nearest = _squares(x, centres[:i]).min(1)
        centres = centres.at[i].set(x[jax.random.categorical(one, jnp.log(nearest))])
    return centres


class PCA(NamedTuple):
    """Components ``[k, features]``, orthonormal, the variance along each ``[k]``, and the mean ``[features]``."""

    components: jax.Array
    variance: jax.Array
    mean: jax.Array

    def encode(self, x: jax.Array) -> jax.Array:
        """``[n, features]`` to ``[n, k]``."""
        return (x - self.mean) @ self.components.T

    def decode(self, codes: jax.Array) -> jax.Array:
        """Back to ``[n, features]``: the nearest point of the plane."""
        return codes @ self.components + self.mean


def fit_pca(x: jax.Array, k: int) -> PCA:
    """The directions along which the data vary most; the variance is that of 1/(n - 1).

    Raises:
        ValueError: the data are not ``[n, features]``, or have fewer than k of either.
    """
    if jnp.ndim(x) != 2 or not 0 < k <= min(x.shape):
        raise ValueError(f"fit_pca needs [n, features] of at least {k} each, got {describe(x)}")
    mean = x.mean(0)
    _, s, vh = jnp.linalg.svd(x - mean, full_matrices=False)
    return PCA(vh[:k], s[:k] ** 2 / (len(x) - 1), mean)


def self_training(
    fit: Callable[[jax.Array, jax.Array, jax.Array], Any],
    probabilities: Callable[[Any, jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    labelled: jax.Array,
    classes: int,
    *,
    sure: float = 0.9,
    rounds: int = 5,
) -> tuple[Any, jax.Array]:
    """Few labels and many examples: fit, label what the model is sure of by itself, fit again (Scudder 1965).

    Args:
        fit: ``(x, shares [n, classes], weights [n]) -> model``.
        probabilities: ``(model, x) -> [n, classes]``.
        x: all examples.
        y: their labels, ``[n]``; those of unlabelled ones are not looked at.
        labelled: bool ``[n]``, which labels are given.
        classes: how many there are.
        sure: the probability from which the model's own label is taken.
        rounds: how often to label and fit again.

    Returns:
        The last model, and how many examples it was fitted on in each round, ``[rounds + 1]``.
    """
    shares = jax.nn.one_hot(y, classes, dtype=x.dtype)
    model = fit(x, shares, labelled.astype(x.dtype))
    counts = [jnp.sum(labelled)]
    for _ in range(rounds):
        found = probabilities(model, x)
        own = jax.nn.one_hot(jnp.argmax(found, 1), classes, dtype=x.dtype)
        taken = labelled | (found.max(1) >= sure)
        model = fit(x, jnp.where(labelled[:, None], shares, own), taken.astype(x.dtype))
        counts.append(jnp.sum(taken))
    return model, jnp.stack(counts)
