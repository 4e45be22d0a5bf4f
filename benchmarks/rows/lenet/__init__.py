"""A training step of LeNet: 28 x 28 images, two 5 x 5 convolutions with pooling, three dense layers; Adam.

Batches of 128 with cross-entropy. Most of the time goes into convolutions and the gradient of max pooling.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import Case, Scale
from purenets import models

TITLE = "LeNet, a training step"
RATE = 1e-3
_BATCH = {"tiny": 4, "small": 128, "full": 2048}


def cases(scale: Scale) -> Iterator[Case]:
    """One case."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((_BATCH[scale], 28, 28, 1), np.float32))
    y = jnp.asarray(rng.integers(0, 10, len(x)), jnp.int32)
    weights, _ = models.lenet().init(jax.random.key(0))
    yield Case("lenet", TITLE, {"batch": (x, y), "weights": weights}, rounds=30, calls=2, seconds=30)


def channels_first(weights: Any) -> Any:
    """The weights for a network that flattens ``[channels, height, width]``."""
    kernel = weights["dense_1"]["kernel"].reshape(5, 5, 16, -1).transpose(2, 0, 1, 3).reshape(400, -1)
    return weights | {"dense_1": weights["dense_1"] | {"kernel": kernel}}
