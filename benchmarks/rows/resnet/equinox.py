"""Equinox: modules of one example, channels first, with batch norm over the named axis of a ``vmap``."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import repeated
from benchmarks.loops.equinox import fill
from benchmarks.loops.raw import cross_entropy
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import DECAY, EPS, MOMENTUM, RATE, flat, sizes, strides


def _conv(n_in: int, n_out: int, stride: int, key: jax.Array) -> eqx.nn.Conv2d:
    return eqx.nn.Conv2d(n_in, n_out, 3, stride, padding=1, use_bias=False, key=key)


def _norm(channels: int) -> eqx.nn.BatchNorm:
    return eqx.nn.BatchNorm(channels, "batch", eps=EPS, momentum=DECAY, mode="batch")


class Block(eqx.Module):
    """Two convolutions and the shortcut."""

    conv_1: eqx.nn.Conv2d
    conv_2: eqx.nn.Conv2d
    norm_1: eqx.nn.BatchNorm
    norm_2: eqx.nn.BatchNorm
    stride: int = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, stride: int, key: jax.Array) -> None:
        one, two = jax.random.split(key)
        self.conv_1, self.conv_2 = _conv(n_in, n_out, stride, one), _conv(n_out, n_out, 1, two)
        self.norm_1, self.norm_2, self.stride = _norm(n_out), _norm(n_out), stride

    def __call__(self, x: jax.Array, state: Any) -> Any:
        """To the same, or half as large and twice as wide."""
        y, state = self.norm_1(self.conv_1(x), state)
        y, state = self.norm_2(self.conv_2(jax.nn.relu(y)), state)
        if x.shape != y.shape:
            widths = ((0, y.shape[0] - x.shape[0]), (0, 0), (0, 0))
            x = jnp.pad(x[:, :: self.stride, :: self.stride], widths)
        return jax.nn.relu(x + y), state


class ResNet(eqx.Module):
    """The network."""

    stem: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(self, depth: int, key: jax.Array) -> None:
        shapes = zip(sizes(depth), strides(depth), strict=True)
        self.stem, self.norm = _conv(3, 16, 1, key), _norm(16)
        self.blocks = [Block(*size, stride, key) for size, stride in shapes]
        self.head = eqx.nn.Linear(64, 10, key=key)

    def __call__(self, x: jax.Array, state: Any) -> Any:
        """One image ``[3, height, width]`` to logits."""
        x, state = self.norm(self.stem(x), state)
        x = jax.nn.relu(x)
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(x.mean((1, 2))), state


def contestants(case: Case) -> dict[str, Call]:
    """A step over the leaves."""
    model, state = eqx.nn.make_with_state(ResNet)(case.given["depth"], jax.random.key(0))
    weights = flat(case.given["weights"])
    model = fill(model, {name: weights[name] for name in ("stem", "norm", "head")})
    blocks = [fill(block, weights[f"block_{i}"]) for i, block in enumerate(model.blocks, 1)]
    model = eqx.tree_at(lambda model: model.blocks, model, blocks)
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    carry = (model, state, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
    arrays, static = eqx.partition(carry, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    @partial(jax.jit, donate_argnums=0)
    def step(leaves: Any, batch: Any) -> Any:
        model, state, opt_state = eqx.combine(jax.tree.unflatten(treedef, leaves), static)

        def objective(model: Any) -> Any:
            mapped = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            logits, new = mapped(batch[0], state)
            return cross_entropy(logits, batch[1]), new

        (value, state), grads = eqx.filter_value_and_grad(objective, has_aux=True)(model)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        carry = (eqx.apply_updates(model, updates), state, opt_state)
        return jax.tree.leaves(eqx.filter(carry, eqx.is_array)), value

    x, y = case.given["batch"]
    return {"flat leaves, jit": repeated((step, leaves), (jnp.moveaxis(x, -1, 1), y))}
