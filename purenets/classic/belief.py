"""Greedy pre-training, layer by layer and without labels, before fine-tuning (Hinton & Salakhutdinov 2006).

Each layer is trained on what the one below makes of the data, as a restricted Boltzmann machine or as an
autoencoder. The result are params of :func:`purenets.models.mlp`, whose layers are ``dense_1``, ``dense_2``, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from purenets.classic.rbm import fit_rbm, hidden_given_visible
from purenets.layer import Key, Params

__all__ = ["fit_autoencoder", "pretrain_autoencoders", "pretrain_rbms"]


def pretrain_rbms(key: Key, x: jax.Array, sizes: Sequence[int], **options: Any) -> Params:
    """A deep belief network: params ``dense_1`` ... for the hidden sizes, of stacked machines.

    ``options`` are those of :func:`purenets.classic.rbm.fit_rbm`.
    """
    params: Params = {}
    for i, size in enumerate(sizes, 1):
        machine, _ = fit_rbm(jax.random.fold_in(key, i), x, size, **options)
        params[f"dense_{i}"] = {"kernel": machine["kernel"], "bias": machine["hidden_bias"]}
        x = hidden_given_visible(machine, x)
    return params


def fit_autoencoder(
    key: Key, x: jax.Array, hidden: int, *, epochs: int = 10, batch_size: int = 32, rate: float = 0.5
) -> tuple[Params, jax.Array]:
    """A sigmoid layer and its transpose back, by gradient descent on the squared error of reconstruction.

    Params are ``kernel``, ``bias`` and ``back_bias``; the error of each epoch comes with them.
    """
    weights, order = jax.random.split(key)
    kernel = jax.nn.initializers.glorot_uniform()(weights, (x.shape[1], hidden))
    params = {"kernel": kernel, "bias": jnp.zeros(hidden), "back_bias": jnp.zeros(x.shape[1])}
    count = len(x) // batch_size

    def loss(params: Params, rows: jax.Array) -> jax.Array:
        h = jax.nn.sigmoid(rows @ params["kernel"] + params["bias"])
        back = jax.nn.sigmoid(h @ params["kernel"].T + params["back_bias"])
        return jnp.mean(jnp.sum((rows - back) ** 2, 1))

    def batch(params: Params, rows: jax.Array) -> tuple[Params, jax.Array]:
        value, slope = jax.value_and_grad(loss)(params, rows)
        return jax.tree.map(lambda p, g: p - rate * g, params, slope), value

    def epoch(params: Params, number: jax.Array) -> tuple[Params, jax.Array]:
        places = jax.random.permutation(jax.random.fold_in(order, number), len(x))[: count * batch_size]
        params, values = jax.lax.scan(batch, params, x[places].reshape(count, batch_size, -1))
        return params, values.mean()

    return jax.lax.scan(epoch, params, jnp.arange(epochs))


def pretrain_autoencoders(key: Key, x: jax.Array, sizes: Sequence[int], **options: Any) -> Params:
    """As :func:`pretrain_rbms`, of stacked autoencoders; ``options`` are those of :func:`fit_autoencoder`."""
    params: Params = {}
    for i, size in enumerate(sizes, 1):
        coder, _ = fit_autoencoder(jax.random.fold_in(key, i), x, size, **options)
        params[f"dense_{i}"] = {name: coder[name] for name in ("kernel", "bias")}
        x = jax.nn.sigmoid(x @ coder["kernel"] + coder["bias"])
    return params
