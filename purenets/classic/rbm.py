"""Restricted Boltzmann machines (Smolensky 1986) and contrastive divergence (Hinton 2002).

Visible units v and hidden units h, all 0 or 1, have the energy ``E = -b.v - c.h - v^T W h`` and the probability
``exp(-E) / Z``. Given one side the units of the other are independent: ``p(h = 1 | v) = sigmoid(c + v W)``.

Params are ``kernel [visible, hidden]``, ``visible_bias [visible]`` and ``hidden_bias [hidden]``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purenets.classic.threshold import truth_table
from purenets.errors import describe
from purenets.layer import Key, Params

__all__ = [
    "contrastive_divergence",
    "energy",
    "fit_rbm",
    "free_energy",
    "hidden_given_visible",
    "log_likelihood",
    "rbm_params",
    "visible_given_hidden",
]


def rbm_params(key: Key, visible: int, hidden: int, *, deviation: float = 0.01) -> Params:
    """Normal weights and no biases (Hinton 2010, section 8)."""
    return {
        "kernel": deviation * jax.random.normal(key, (visible, hidden)),
        "visible_bias": jnp.zeros(visible),
        "hidden_bias": jnp.zeros(hidden),
    }


def energy(params: Params, v: jax.Array, h: jax.Array) -> jax.Array:
    """``-b.v - c.h - v^T W h``, for ``[..., visible]`` and ``[..., hidden]``."""
    pair = jnp.sum((v @ params["kernel"]) * h, -1)
    return -(v @ params["visible_bias"]) - h @ params["hidden_bias"] - pair


def hidden_given_visible(params: Params, v: jax.Array) -> jax.Array:
    """``p(h = 1 | v)`` of each hidden unit."""
    return jax.nn.sigmoid(params["hidden_bias"] + v @ params["kernel"])


def visible_given_hidden(params: Params, h: jax.Array) -> jax.Array:
    """``p(v = 1 | h)`` of each visible unit."""
    return jax.nn.sigmoid(params["visible_bias"] + h @ params["kernel"].T)


def free_energy(params: Params, v: jax.Array) -> jax.Array:
    """``-log sum_h exp(-E(v, h))``: ``p(v)`` is ``exp(-F) / Z``."""
    return -(v @ params["visible_bias"]) - jnp.sum(
        jax.nn.softplus(params["hidden_bias"] + v @ params["kernel"]), -1
    )


def log_likelihood(params: Params, v: jax.Array) -> jax.Array:
    """The exact mean log probability of ``[n, visible]``, by going through all visible states.

    Raises:
        ValueError: more than 20 visible units, of which there are over a million states.
    """
    visible = params["visible_bias"].shape[0]
    if visible > 20:
        raise ValueError(f"log_likelihood goes through 2^{visible} states: 20 visible units at most")
    log_z = jax.nn.logsumexp(-free_energy(params, jnp.asarray(truth_table(visible))))
    return jnp.mean(-free_energy(params, v)) - log_z


def contrastive_divergence(
    params: Params, key: Key, v: jax.Array, *, steps: int = 1, chain: jax.Array | None = None
) -> tuple[Params, jax.Array]:
    """The direction up the likelihood, estimated after ``steps`` of Gibbs sampling, and where the chain is then.

    Args:
        params: of the machine.
        key: for the samples.
        v: data ``[n, visible]``.
        steps: of sampling; 1 is CD-1.
        chain: visible states to go on from; the data by default. Persistent contrastive divergence
            (Tieleman 2008) hands in what the last call returned.
    """

    def gibbs(v: jax.Array, key: Key) -> tuple[jax.Array, None]:
        up, down = jax.random.split(key)
        h = jax.random.bernoulli(up, hidden_given_visible(params, v)).astype(v.dtype)
        return jax.random.bernoulli(down, visible_given_hidden(params, h)).astype(v.dtype), None

    model, _ = jax.lax.scan(gibbs, v if chain is None else chain, jax.random.split(key, steps))

    def statistics(v: jax.Array) -> Params:
        h = hidden_given_visible(params, v)
        return {"kernel": v.T @ h / len(v), "visible_bias": v.mean(0), "hidden_bias": h.mean(0)}

    return jax.tree.map(jnp.subtract, statistics(v), statistics(model)), model


def fit_rbm(
    key: Key,
    v: jax.Array,
    hidden: int,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    rate: float = 0.1,
    steps: int = 1,
    persistent: bool = False,
) -> tuple[Params, jax.Array]:
    """Train on ``[n, visible]`` in [0, 1]; the mean squared error of reconstruction of each epoch comes with it.

    Raises:
        ValueError: the data are not ``[n, visible]``, or less than a batch.
    """
    if jnp.ndim(v) != 2 or len(v) < batch_size:
        raise ValueError(f"fit_rbm needs [n, visible] of at least a batch of {batch_size}, got {describe(v)}")
    weights, order, samples = jax.random.split(key, 3)
    params = rbm_params(weights, v.shape[1], hidden)
    count = len(v) // batch_size

    def batch(carry: Any, given: Any) -> Any:
        params, chain = carry
        rows, key = given
        step, chain = contrastive_divergence(
            params, key, rows, steps=steps, chain=chain if persistent else None
        )
        params = jax.tree.map(lambda p, g: p + rate * g, params, step)
        back = visible_given_hidden(params, hidden_given_visible(params, rows))
        return (params, chain), jnp.mean((rows - back) ** 2)

    def epoch(carry: Any, number: jax.Array) -> Any:
        places = jax.random.permutation(jax.random.fold_in(order, number), len(v))[: count * batch_size]
        keys = jax.random.split(jax.random.fold_in(samples, number), count)
        carry, errors = jax.lax.scan(batch, carry, (v[places].reshape(count, batch_size, -1), keys))
        return carry, errors.mean()

    (params, _), errors = jax.lax.scan(epoch, (params, v[:batch_size]), jnp.arange(epochs))
    return params, errors
