"""JAX by hand: a dict of arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE, squares


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step."""

    def run(params: Any, state: Any, x: jax.Array) -> Any:
        return x * jnp.stack(list(params.values())), state

    return {
        "jit": repeated(
            raw.loop(run, case.given["weights"], {}, optax.sgd(RATE), squares), case.given["batch"]
        )
    }
