"""Haiku."""

from __future__ import annotations

from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import haiku, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import DECAY, EPS, MOMENTUM, RATE, flat, sizes, strides


def _conv(channels: int, stride: int, name: str) -> Any:
    padding = ((1, 1), (1, 1))
    return hk.Conv2D(channels, 3, stride=stride, padding=padding, with_bias=False, name=name)


def _norm(name: str) -> Any:
    norm = hk.BatchNorm(True, True, decay_rate=DECAY, eps=EPS, name=name)
    return partial(norm, is_training=True)


def net(depth: int, x: jax.Array) -> jax.Array:
    """To logits."""
    x = jax.nn.relu(_norm("norm")(_conv(16, 1, "stem")(x)))
    for number, ((_, channels), stride) in enumerate(zip(sizes(depth), strides(depth), strict=True), 1):
        with hk.experimental.name_scope(f"block_{number}"):
            y = jax.nn.relu(_norm("norm_1")(_conv(channels, stride, "conv_1")(x)))
            y = _norm("norm_2")(_conv(channels, 1, "conv_2")(y))
        if x.shape != y.shape:
            x = jnp.pad(x[:, ::stride, ::stride], ((0, 0),) * 3 + ((0, y.shape[-1] - x.shape[-1]),))
        x = jax.nn.relu(x + y)
    return hk.Linear(10, name="head")(x.mean((1, 2)))


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step."""
    batch, optimizer = case.given["batch"], optax.sgd(RATE, momentum=MOMENTUM)
    weights = haiku.named(flat(case.given["weights"]))
    for name, values in weights.items():
        if "scale" in values:  # Haiku keeps one axis for each that it takes the mean over
            weights[name] = {leaf: value[None, None, None] for leaf, value in values.items()}
    loop = haiku.loop(partial(net, case.given["depth"]), weights, optimizer, sample=batch[0])
    return {"jit": repeated(loop, batch)}
