"""One tiny jitted training step whose parameters are 10, 100 or 1,000 leaves of 4 numbers each.

The loss is the mean square of all numbers' distance from a target, and the step is plain gradient descent, so nothing
is computed that takes time: what is left is the way from Python into the program and back, for each leaf and for
each call.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import Case, Scale

TITLE = "Dispatch"
RATE = 1.0
_LEAVES = {"tiny": (3,), "small": (10, 100, 1000), "full": (10, 100, 1000)}


def cases(scale: Scale) -> Iterator[Case]:
    """One for each number of leaves."""
    rng = np.random.default_rng(0)
    for count in _LEAVES[scale]:
        weights = {f"leaf_{i:04d}": jnp.asarray(rng.standard_normal(4, np.float32)) for i in range(count)}
        batch = (jnp.float32(1), jnp.asarray(rng.standard_normal(4, np.float32)))
        title = f"A tiny step, {count:,} leaves"
        calls = max(10, 2000 // count)
        yield Case(
            f"dispatch-{count}",
            title,
            {"weights": weights, "batch": batch},
            rounds=40,
            calls=calls,
            seconds=15,
        )


def squares(output: jax.Array, y: jax.Array) -> jax.Array:
    """The loss."""
    return jnp.mean(jnp.square(output - y))
