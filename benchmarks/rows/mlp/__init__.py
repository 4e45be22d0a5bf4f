"""An epoch of a small network: 784-16-16-10 with sigmoids, cross-entropy, batches of 32, plain gradient descent.

60,000 examples with data on the device, in their order and in a new random order. A step computes for some thirty
microseconds, so this row measures what a library adds to each step, and what shuffling costs. Losses of the shuffled
epoch are compared on data in which all examples are the same, where the order is without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.loops import Loop
from benchmarks.protocol import Call, Case, Scale
from purenets import models

TITLE = "Small MLP, an epoch"
SIZES, BATCH, RATE = (784, 16, 16, 10), 32, 0.1
_EXAMPLES = {"tiny": 320, "small": 60_000, "full": 60_000}


def cases(scale: Scale) -> Iterator[Case]:
    """In order, and shuffled."""
    examples = _EXAMPLES[scale]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((examples, SIZES[0]), np.float32))
    y = jnp.asarray(rng.integers(0, SIZES[-1], examples), jnp.int32)
    weights, _ = models.mlp(SIZES).init(jax.random.key(0))
    given: dict[str, Any] = {"x": x, "y": y, "weights": weights, "shuffle": False}
    yield Case("mlp", "Small MLP, an epoch in order", given, checked=1)
    shuffled = Case("mlp-shuffled", "Small MLP, a shuffled epoch", given | {"shuffle": True}, checked=1)
    same = {"x": jnp.broadcast_to(x[:1], x.shape) + 0, "y": jnp.full_like(y, 3)}
    yield replace(shuffled, compared=replace(shuffled, given=shuffled.given | same))


def epochs(loop: Loop, case: Case) -> Call:
    """Whole epochs, one call of a jitted step after another, on batches that lie on the device."""
    step, carry = loop
    x, y = case.given["x"], case.given["y"]
    steps = len(x) // BATCH
    held, rng = [carry], np.random.default_rng(1)
    del carry
    ordered = [(x[i * BATCH : (i + 1) * BATCH], y[i * BATCH : (i + 1) * BATCH]) for i in range(steps)]
    take = jax.jit(lambda x, y, chosen: (x[chosen], y[chosen]))

    def call() -> Any:
        losses, carry = [], held[0]
        if case.given["shuffle"]:
            order = rng.permutation(len(x))[: steps * BATCH].reshape(steps, BATCH)
            found = (take(x, y, chosen) for chosen in order)
        else:
            found = iter(ordered)
        for batch in found:
            carry, loss = step(carry, batch)
            losses.append(loss)
        held[0] = carry
        return losses

    return call


def whole(epoch: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]], carry: Any, case: Case) -> Call:
    """Whole epochs as one program each: ``epoch(carry, data, key) -> (carry, losses)``."""
    jitted = partial(jax.jit, donate_argnums=0)(epoch)
    held, key = [carry], jax.random.key(1)
    del carry

    def call() -> Any:
        held[0], losses = jitted(held[0], (case.given["x"], case.given["y"]), key)
        return losses

    return call
