"""The loop by hand around a model: the whole prefix, filled up to the context, for each token."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.protocol import Call, Case
from purenets import models


def contestants(case: Case) -> dict[str, Call]:
    """Without a cache."""
    sizes = case.given["sizes"]
    model = models.gpt(sizes.vocabulary, sizes.dim, sizes.heads, sizes.depth, sizes.time)
    prompt = case.given["batch"][0][:, : sizes.time // 8]
    length = prompt.shape[1]

    @jax.jit
    def generate(params: Any, prompt: jax.Array) -> jax.Array:
        ids = jnp.zeros((len(prompt), sizes.time), jnp.int32).at[:, :length].set(prompt)

        def step(number: int, ids: jax.Array) -> jax.Array:
            logits, _ = model.apply(params, {}, ids)
            return ids.at[:, number].set(jnp.argmax(jnp.take(logits, number - 1, axis=1), -1))

        return jax.lax.fori_loop(length, sizes.time, step, ids)[:, length:]

    return {"whole prefix again": lambda: generate(case.given["weights"], prompt)}
