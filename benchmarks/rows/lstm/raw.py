"""JAX by hand: a scan with the product with the inputs inside, and with all of these products ahead of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE, squares


def _run(ahead: bool, p: Any, x: jax.Array) -> jax.Array:
    def project(x: jax.Array) -> jax.Array:
        return x @ p["kernel"] + p["bias"]

    def step(carry: Any, now: jax.Array) -> Any:
        c, h = carry
        now = now if ahead else project(now)
        i, f, g, o = jnp.split(now + h @ p["recurrent_kernel"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    zeros = jnp.zeros((len(x), p["recurrent_kernel"].shape[0]))
    xs = jnp.moveaxis(x, 1, 0)
    _, ys = jax.lax.scan(step, (zeros, zeros), project(xs) if ahead else xs)
    return jnp.moveaxis(ys, 0, 1)


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step for both."""

    def made(ahead: bool) -> Call:
        run = lambda params, state, x: (_run(ahead, params, x), state)
        loop = raw.loop(run, case.given["weights"], {}, optax.sgd(RATE), squares)
        return repeated(loop, case.given["batch"])

    return {"scan, product inside": made(False), "scan, product ahead": made(True)}
