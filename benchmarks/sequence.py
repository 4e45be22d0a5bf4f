"""Sequences: a decoder Transformer beside its peers, its compile time over depth, and generation.

``python -m benchmarks.sequence`` prints three tables. *Training step*: a GPT of 6 layers, 128 wide, on batches
of 128 tokens by 16, loss, gradients and AdamW, beside Flax linen and plain JAX written by hand, each with its
blocks one after another and as one scan. *First call*: tracing and compiling that step at depth 24 over depth
2. *Generation*: 128 tokens, from the cache and by running the whole prefix at each step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import purenets as pn
from benchmarks.harness import compare, ratios, show
from benchmarks.transformer_peers import LinenGPT, hand_init, hand_logits
from purenets.generate import generate
from purenets.models.gpt import gpt

SIZE, DIM, HEADS, DEPTH, TIME, BATCH = 65, 128, 4, 6, 128, 16


def _batch() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, SIZE, (BATCH, TIME + 1)), jnp.int32)
    return ids[:, :-1], ids[:, 1:]


def _ours(depth: int = DEPTH, unroll: int = 1) -> tuple[Any, Any]:
    """A compiled step and the state to start from."""
    model = gpt(SIZE, DIM, HEADS, depth, TIME, unroll=unroll)
    optimizer = pn.optim.adamw(3e-4)
    step = pn.make_step(pn.supervised(model, pn.losses.softmax_cross_entropy), optimizer)
    return jax.jit(step, donate_argnums=0), lambda: pn.start(model, optimizer, jax.random.key(0))


def _peer(logits: Callable[..., jax.Array], init: Callable[[], Any]) -> tuple[Any, Any]:
    optimizer = optax.adamw(3e-4)

    @partial(jax.jit, donate_argnums=0)
    def step(ts: Any, batch: Any) -> Any:
        params, opt_state = ts

        def loss_of(params: Any) -> jax.Array:
            out = logits(params, batch[0])
            return optax.losses.softmax_cross_entropy_with_integer_labels(out, batch[1]).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def start() -> Any:
        params = init()
        return params, optimizer.init(params)

    return step, start


def _linen(scan: bool) -> tuple[Any, Any]:
    model = LinenGPT(SIZE, DIM, HEADS, DEPTH, TIME, scan)
    return _peer(model.apply, lambda: model.init(jax.random.key(0), _batch()[0]))


def _hand(scan: bool) -> tuple[Any, Any]:
    logits = partial(hand_logits, heads=HEADS, scan=scan)
    return _peer(logits, lambda: hand_init(jax.random.key(0), SIZE, DIM, DEPTH, TIME))


def _stepping(pair: tuple[Any, Any]) -> Callable[[], Any]:
    """A call that goes on from where the last one ended."""
    step, start = pair
    held, batch = [start()], _batch()

    def call() -> Any:
        held[0], metrics = step(held[0], batch)
        return metrics

    return call


def training_step(rounds: int) -> None:
    """Table 1."""
    contestants = {
        "purenets": _ours(),
        "purenets, unrolled": _ours(unroll=DEPTH),
        "linen": _linen(False),
        "linen, scan": _linen(True),
        "by hand": _hand(False),
        "by hand, scan": _hand(True),
    }
    calls = {name: _stepping(pair) for name, pair in contestants.items()}
    show("Transformer training step", compare(calls, rounds=rounds, calls=1), packages=("flax", "optax"))


def first_call(rounds: int) -> None:
    """Table 2."""
    times: dict[str, list[float]] = {"2 layers": [], "24 layers": []}
    for _ in range(rounds):
        for depth in (2, 24):
            step, start = _ours(depth)
            ts = jax.eval_shape(start)
            jax.clear_caches()
            started = time.perf_counter()
            step.lower(ts, _batch()).compile()
            times[f"{depth} layers"].append(time.perf_counter() - started)
    show("Transformer first call", ratios(times))


def generation(rounds: int, steps: int = 112) -> None:
    """Table 3: both are greedy, and from the same prompt of 16 tokens."""
    model = gpt(SIZE, DIM, HEADS, DEPTH, TIME)
    params, state = model.init(jax.random.key(0))
    prompt = _batch()[0][:, : TIME - steps]

    @jax.jit
    def prefix_again(params: Any, prompt: jax.Array) -> jax.Array:
        ids = jnp.zeros((BATCH, TIME), jnp.int32).at[:, : TIME - steps].set(prompt)

        def step(number: int, ids: jax.Array) -> jax.Array:
            logits, _ = model.apply(params, state, ids)
            last = jnp.take(logits, number - 1, axis=1)
            return ids.at[:, number].set(jnp.argmax(last, -1))

        return jax.lax.fori_loop(TIME - steps, TIME, step, ids)[:, TIME - steps :]

    calls = {
        "cached": lambda: generate(model, params, state, prompt, steps=steps).tokens,
        "whole prefix again": lambda: prefix_again(params, prompt),
    }
    np.testing.assert_array_equal(calls["cached"](), calls["whole prefix again"]())
    show("Transformer generation", compare(calls, rounds=rounds, calls=1))


def main() -> None:
    """Print the tables."""
    training_step(rounds=15)
    first_call(rounds=5)
    generation(rounds=5)


if __name__ == "__main__":
    main()
