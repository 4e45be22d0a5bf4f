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
    given = given_at(_DEPTH[scale], _BATCH[scale], _SIDE[scale])
    yield Case("resnet", TITLE, given)


def given_at(depth: int, batch: int, side: int) -> dict[str, Any]:
    """Weights and a batch for a network of this depth."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, side, side, 3), np.float32))
    y = jnp.asarray(rng.integers(0, 10, len(x)), jnp.int32)
    weights, _ = models.resnet_cifar(depth).init(jax.random.key(0))
    return {"batch": (x, y), "weights": weights, "depth": depth}


def flat(weights: Any) -> dict[str, Any]:
    """The weights with the blocks numbered through, ``block_1`` to ``block_9``, none of them stacked."""
    found = {name: weights[name] for name in ("stem", "norm", "head")}
    blocks = []
    for stage in (1, 2, 3):
        parts = dict(weights[f"stage_{stage}"])
        blocks.append(parts.pop("first"))
        if "rest" in parts:
            rest = parts.pop("rest")
            count = len(jax.tree.leaves(rest)[0])
            blocks += [jax.tree.map(lambda leaf, i=i: leaf[i], rest) for i in range(count)]
        blocks += [parts[name] for name in sorted(parts)]
    return found | {f"block_{i}": block["joined"]["body"] for i, block in enumerate(blocks, 1)}


def strides(depth: int) -> list[int]:
    """The stride of each block."""
    count = (depth - 2) // 6
    return [2 if stage and not block else 1 for stage in range(3) for block in range(count)]


def sizes(depth: int) -> list[tuple[int, int]]:
    """The channels that go into each block and come out."""
    outs = [16 * 2**stage for stage in range(3) for _ in range((depth - 2) // 6)]
    return list(zip([16, *outs[:-1]], outs, strict=True))
