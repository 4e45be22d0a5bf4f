"""Equinox: modules of one example, channels first."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import repeated
from benchmarks.loops.equinox import fill, flat_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE, channels_first


class LeNet(eqx.Module):
    """The network."""

    conv_1: eqx.nn.Conv2d
    conv_2: eqx.nn.Conv2d
    dense_1: eqx.nn.Linear
    dense_2: eqx.nn.Linear
    head: eqx.nn.Linear
    pool: eqx.nn.MaxPool2d

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key, 5)
        self.conv_1 = eqx.nn.Conv2d(1, 6, 5, padding=2, key=keys[0])
        self.conv_2 = eqx.nn.Conv2d(6, 16, 5, key=keys[1])
        self.dense_1 = eqx.nn.Linear(400, 120, key=keys[2])
        self.dense_2 = eqx.nn.Linear(120, 84, key=keys[3])
        self.head = eqx.nn.Linear(84, 10, key=keys[4])
        self.pool = eqx.nn.MaxPool2d(2, 2)

    def __call__(self, x: jax.Array) -> jax.Array:
        """One image ``[1, 28, 28]`` to logits."""
        x = self.pool(jax.nn.relu(self.conv_1(x)))
        x = self.pool(jax.nn.relu(self.conv_2(x)))
        x = jax.nn.relu(self.dense_1(x.ravel()))
        return self.head(jax.nn.relu(self.dense_2(x)))


def contestants(case: Case) -> dict[str, Call]:
    """A step over the leaves."""
    model = fill(LeNet(jax.random.key(0)), channels_first(case.given["weights"]))
    x, y = case.given["batch"]
    batch = (jnp.moveaxis(x, -1, 1), y)
    return {"flat leaves, jit": repeated(flat_loop(model, optax.adam(RATE)), batch)}
