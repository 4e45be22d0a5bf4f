"""What a training step of an LSTM costs beside Flax linen and Flax nnx, and torch where it is installed.

``python -m benchmarks.recurrent``: 100 steps in time, 128 inputs and units, batch 64, gradient descent on the
mean of the weighted outputs. Every contestant jits a donated step.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.harness import compare, show
from purenets import layers

BATCH, TIME, SIZE, RATE = 64, 100, 128, 1e-3


def _stepper(run: Callable[[Any, jax.Array], jax.Array], params: Any) -> Callable[[], Any]:
    x = jax.random.normal(jax.random.key(0), (BATCH, TIME, SIZE))
    weights = jax.random.normal(jax.random.key(1), (BATCH, TIME, SIZE))

    def step(params: Any, x: jax.Array) -> Any:
        grads = jax.grad(lambda p: jnp.mean(run(p, x) * weights))(params)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads)

    jitted, kept = jax.jit(step, donate_argnums=0), [params]

    def call() -> Any:
        kept[0] = jitted(kept[0], x)
        return kept[0]

    return call


def _linen() -> Callable[[], Any]:
    model = nn.RNN(nn.OptimizedLSTMCell(SIZE))
    return _stepper(model.apply, model.init(jax.random.key(0), jnp.zeros((1, 1, SIZE))))


def _nnx() -> Callable[[], Any]:
    rngs = nnx.Rngs(0)
    graph, params, rest = nnx.split(
        nnx.RNN(nnx.OptimizedLSTMCell(SIZE, SIZE, rngs=rngs), rngs=rngs), nnx.Param, ...
    )
    return _stepper(lambda p, x: nnx.merge(graph, p, rest, copy=True)(x), params)


def _purenets() -> Callable[[], Any]:
    model = layers.rnn(layers.lstm_cell(SIZE, SIZE))
    return _stepper(lambda p, x: model.apply(p, {}, x)[0], model.init(jax.random.key(0))[0])


def _by_hand() -> Callable[[], Any]:
    """The scan that a careful person writes, with the product with the inputs inside, where it is faster on CPU."""
    model = layers.rnn(layers.lstm_cell(SIZE, SIZE))

    def run(p: Any, x: jax.Array) -> jax.Array:
        def step(carry: Any, now: jax.Array) -> Any:
            c, h = carry
            i, f, g, o = jnp.split(now @ p["kernel"] + h @ p["recurrent_kernel"] + p["bias"], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (c, h), h

        zeros = jnp.zeros((len(x), SIZE))
        return jnp.moveaxis(jax.lax.scan(step, (zeros, zeros), jnp.moveaxis(x, 1, 0))[1], 0, 1)

    return _stepper(run, model.init(jax.random.key(0))[0])


def _torch() -> Callable[[], Any]:
    import torch

    model = torch.nn.LSTM(SIZE, SIZE, batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    x, weights = torch.randn(BATCH, TIME, SIZE), torch.randn(BATCH, TIME, SIZE)

    def call() -> Any:
        optimizer.zero_grad()
        (model(x)[0] * weights).mean().backward()
        optimizer.step()

    return call


def main(rounds: int = 40) -> None:
    """Print the table."""
    contestants = {"linen": _linen(), "nnx": _nnx(), "raw JAX": _by_hand(), "purenets": _purenets()}
    if importlib.util.find_spec("torch"):
        contestants["torch"] = _torch()
    show("LSTM training step", compare(contestants, rounds=rounds, calls=1), packages=("flax",))


if __name__ == "__main__":
    main()
