"""JAX by hand, with the two ways to pool whose gradients are fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from benchmarks.loops import raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE


def _conv(x: jax.Array, p: Any, padding: str) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x, p["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y + p["bias"])


def _sliced(x: jax.Array) -> jax.Array:
    upper, lower = x[:, ::2], x[:, 1::2]
    maximum = jax.numpy.maximum
    return maximum(maximum(upper[:, :, ::2], upper[:, :, 1::2]), maximum(lower[:, :, ::2], lower[:, :, 1::2]))


def _reshaped(x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _logits(pool: Callable[[jax.Array], jax.Array], p: Any, x: jax.Array) -> jax.Array:
    x = pool(_conv(x, p["conv_1"], "SAME"))
    x = pool(_conv(x, p["conv_2"], "VALID"))
    x = x.reshape(len(x), -1)
    for name in ("dense_1", "dense_2"):
        x = jax.nn.relu(x @ p[name]["kernel"] + p[name]["bias"])
    return x @ p["head"]["kernel"] + p["head"]["bias"]


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step for each way to pool."""

    def made(pool: Callable[[jax.Array], jax.Array]) -> Call:
        run = lambda params, state, x: (_logits(pool, params, x), state)
        return repeated(raw.loop(run, case.given["weights"], {}, optax.adam(RATE)), case.given["batch"])

    return {"pooling by slices": made(_sliced), "pooling by a reshape": made(_reshaped)}
