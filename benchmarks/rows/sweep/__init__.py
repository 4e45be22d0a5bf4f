"""A sweep of 64 small networks: 784-16-16-10 with sigmoids, 8 seeds by 8 rates, 64 steps of plain gradient descent.

Each member draws its own initial weights from its seed and goes once through 2,048 examples in batches of 32: all
members in the same order, or each in its own random order. The numbers compared are each member's mean loss over the
run; those of runs in random orders are compared on data in which all examples are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from benchmarks.protocol import Case, Scale
from purenets import models, optim

TITLE = "Sweep of MLPs"
SIZES, BATCH = (784, 16, 16, 10), 32
# Seeds, rates and steps.
_SHAPES = {"tiny": (2, 2, 3), "small": (8, 8, 64), "full": (16, 16, 256)}
MODEL = models.mlp(SIZES, activation=jax.nn.sigmoid)


def cases(scale: Scale) -> Iterator[Case]:
    """With one order of the data for all, and with shuffles of their own."""
    seeds, rates, steps = _SHAPES[scale]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((steps * BATCH, SIZES[0]), np.float32))
    y = jnp.asarray(rng.integers(0, SIZES[-1], len(x)), jnp.int32)
    given: dict[str, Any] = {"x": x, "y": y, "seeds": seeds, "rates": np.geomspace(0.01, 0.3, rates)}
    given |= {"shuffle": False}
    members = seeds * rates
    yield Case("sweep", f"{members} MLPs, one data order", given, checked=1)
    own = Case("sweep-shuffled", f"{members} MLPs, own shuffles", given | {"shuffle": True}, checked=1)
    same = {"x": jnp.broadcast_to(x[:1], x.shape) + 0, "y": jnp.full_like(y, 3)}
    yield replace(own, compared=replace(own, given=own.given | same))


def members(case: Case) -> tuple[jax.Array, jax.Array]:
    """The keys and the rates of all members: those of one rate stand together."""
    seeds, rates = case.given["seeds"], jnp.asarray(case.given["rates"], jnp.float32)
    data = jax.random.key_data(jax.random.split(jax.random.key(0), seeds))
    keys = jax.random.wrap_key_data(jnp.tile(data, (len(rates), 1)))
    return keys, jnp.repeat(rates, seeds)


def init(key: jax.Array) -> Any:
    """The initial weights of a member, the same in all libraries."""
    return pn.start(MODEL, optim.sgd(0.0), key).params


def batches(case: Case) -> tuple[jax.Array, jax.Array]:
    """The data in their order, ``[steps, batch, ...]``."""
    x, y = case.given["x"], case.given["y"]
    return x.reshape(-1, BATCH, x.shape[-1]), y.reshape(-1, BATCH)


def order(key: jax.Array, count: int) -> jax.Array:
    """A random order of a member, ``[steps, batch]``, by JAX's own permutation."""
    return jax.random.permutation(jax.random.fold_in(key, 1), count).reshape(-1, BATCH)
