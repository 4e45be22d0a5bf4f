"""A training step of an LSTM: 100 steps in time, 128 inputs and units, batches of 64, plain gradient descent.

The loss is the mean square distance of all outputs from targets. The loop over time is a chain of small products,
and what a library does about the gradient of the weights, which every step adds to, decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import Case, Scale
from purenets import layers

TITLE = "LSTM, a training step"
RATE = 10.0
_SIZES = {"tiny": (2, 3, 4), "small": (64, 100, 128), "full": (256, 256, 512)}


def cases(scale: Scale) -> Iterator[Case]:
    """One case; the weights have the gates in the order i, f, g, o."""
    batch, time, size = _SIZES[scale]
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal((batch, time, size), np.float32)) for _ in range(2))
    weights = layers.rnn(layers.lstm_cell(size, size)).init(jax.random.key(0))[0]
    yield Case("lstm", TITLE, {"batch": (x, y), "weights": weights, "size": size}, rounds=30)


def squares(output: jax.Array, y: jax.Array) -> jax.Array:
    """The loss."""
    return jnp.mean(jnp.square(output - y))
