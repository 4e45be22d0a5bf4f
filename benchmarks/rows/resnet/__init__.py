"""A training step of ResNet-20 with batch norm: 32 x 32 x 3 images in batches of 64; SGD with momentum 0.9.

Nineteen convolutions of 3 x 3 and a dense layer, shortcuts by padding (He et al. 2016). Most of the time goes into
convolutions and into reading and writing activations for the norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import Case, Scale
from purenets import models

TITLE = "ResNet-20, a training step"
RATE, MOMENTUM, DECAY, EPS = 0.1, 0.9, 0.9, 1e-5
_BATCH = {"tiny": 2, "small": 64, "full": 512}
_SIDE = {"tiny": 8, "small": 32, "full": 32}
_DEPTH = {"tiny": 8, "small": 20, "full": 20}


def cases(scale: Scale) -> Iterator[Case]:
    """One case."""
    rng, side = np.random.default_rng(0), _SIDE[scale]
    x = jnp.asarray(rng.standard_normal((_BATCH[scale], side, side, 3), np.float32))
    y = jnp.asarray(rng.integers(0, 10, len(x)), jnp.int32)
    weights, _ = models.resnet_cifar(_DEPTH[scale]).init(jax.random.key(0))
    yield Case("resnet", TITLE, {"batch": (x, y), "weights": weights, "depth": _DEPTH[scale]})


def flat(weights: Any) -> dict[str, Any]:
    """The weights with the blocks numbered through: ``block_1`` to ``block_9``."""
    found = {name: weights[name] for name in ("stem", "norm", "head")}
    blocks = [
        weights[f"stage_{stage}"][name]["joined"]["body"]
        for stage in (1, 2, 3)
        for name in sorted(weights[f"stage_{stage}"], key=lambda name: (name != "first", name))
    ]
    return found | {f"block_{i}": block for i, block in enumerate(blocks, 1)}


def strides(depth: int) -> list[int]:
    """The stride of each block."""
    count = (depth - 2) // 6
    return [2 if stage and not block else 1 for stage in range(3) for block in range(count)]


def sizes(depth: int) -> list[tuple[int, int]]:
    """The channels that go into each block and come out."""
    outs = [16 * 2**stage for stage in range(3) for _ in range((depth - 2) // 6)]
    return list(zip([16, *outs[:-1]], outs, strict=True))
