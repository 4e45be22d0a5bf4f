"""Equinox."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import optax

from benchmarks.loops.equinox import fill, filter_loop, flat_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import RATE, SIZES, epochs


def model(weights: Any) -> eqx.nn.MLP:
    """The network with given weights."""
    net = eqx.nn.MLP(SIZES[0], SIZES[-1], SIZES[1], 2, jax.nn.sigmoid, key=jax.random.key(0))
    layers = [fill(part, each) for part, each in zip(net.layers, weights.values(), strict=True)]
    return eqx.tree_at(lambda net: net.layers, net, tuple(layers))


def contestants(case: Case) -> dict[str, Call]:
    """A filtered step, and one over the leaves."""
    return {
        "filter_jit": epochs(filter_loop(model(case.given["weights"]), optax.sgd(RATE)), case),
        "flat leaves, jit": epochs(flat_loop(model(case.given["weights"]), optax.sgd(RATE)), case),
    }
