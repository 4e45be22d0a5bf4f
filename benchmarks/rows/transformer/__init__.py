"""A training step of a decoder Transformer: 6 blocks of 128 features and 4 heads, 128 tokens by 8; AdamW.

The form of GPT-2: norms ahead of attention and of the feed-forward network of 512 units, biases everywhere, learned
positions, the embedding again as the head. Blocks stand one after another or in a loop over stacked weights; a
library that has both takes part in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import Case, Scale
from purenets import models

TITLE = "Transformer, a training step"
RATE, DECAY, EPS = 3e-4, 1e-4, 1e-5


@dataclass(frozen=True)
class Sizes:
    """Those of the model and of its batches."""

    vocabulary: int
    dim: int
    heads: int
    depth: int
    time: int
    batch: int


_SIZES = {
    "tiny": Sizes(5, 8, 2, 2, 4, 2),
    "small": Sizes(65, 128, 4, 6, 128, 8),
    "full": Sizes(8192, 1024, 16, 12, 512, 16),
}


def given(sizes: Sizes) -> dict[str, Any]:
    """Weights, the blocks stacked, and a batch of tokens and of those after them."""
    model = models.gpt(sizes.vocabulary, sizes.dim, sizes.heads, sizes.depth, sizes.time)
    ids = np.random.default_rng(0).integers(0, sizes.vocabulary, (sizes.batch, sizes.time + 1))
    ids = jnp.asarray(ids, jnp.int32)
    weights, _ = jax.jit(model.init)(jax.random.key(0))
    found = {"sizes": sizes, "weights": weights, "batch": (ids[:, :-1], ids[:, 1:]), "forms": (False, True)}
    return found | {"optimizer": lambda library: library.adamw(RATE, weight_decay=DECAY)}


def cases(scale: Scale) -> Iterator[Case]:
    """One case."""
    yield Case("transformer", TITLE, given(_SIZES[scale]) | ({"forms": (True,)} if scale == "tiny" else {}))


def form(scan: bool) -> str:
    """What a form is called."""
    return "blocks in a loop" if scan else "blocks one after another"


def unstacked(weights: Any) -> list[Any]:
    """The weights of each block."""
    depth = len(weights["blocks"]["attention_norm"]["scale"])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], weights["blocks"]) for i in range(depth)]


def matrices(block: Any) -> Any:
    """The weights of a block, or of blocks stacked, with the axes of heads and of their features as one."""
    attention = {
        name: {leaf: value.reshape(*value.shape[:-2], -1) for leaf, value in part.items()}
        for name, part in block["attention"].items()
        if name != "out"
    }
    out = block["attention"]["out"]
    kernel = out["kernel"].reshape(*out["kernel"].shape[:-3], -1, out["kernel"].shape[-1])
    return block | {"attention": attention | {"out": out | {"kernel": kernel}}}
