"""Flax linen."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import linen, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import DECAY, EPS, MOMENTUM, RATE, flat, sizes, strides


def _conv(channels: int, stride: int, name: str) -> nn.Conv:
    padding = ((1, 1), (1, 1))
    return nn.Conv(channels, (3, 3), (stride, stride), padding=padding, use_bias=False, name=name)


def _norm(name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=False, momentum=DECAY, epsilon=EPS, name=name)


class Block(nn.Module):
    """Two convolutions and the shortcut."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """To the same, or half as large and twice as wide."""
        y = nn.relu(_norm("norm_1")(_conv(self.channels, self.stride, "conv_1")(x)))
        y = _norm("norm_2")(_conv(self.channels, 1, "conv_2")(y))
        if x.shape != y.shape:
            widths = ((0, 0),) * 3 + ((0, y.shape[-1] - x.shape[-1]),)
            x = jnp.pad(x[:, :: self.stride, :: self.stride], widths)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """The network."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """To logits."""
        x = nn.relu(_norm("norm")(_conv(16, 1, "stem")(x)))
        made = zip(sizes(self.depth), strides(self.depth), strict=True)
        for number, ((_, channels), stride) in enumerate(made, 1):
            x = Block(channels, stride, name=f"block_{number}")(x)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step of a TrainState with statistics."""
    model, batch = ResNet(case.given["depth"]), case.given["batch"]
    stats = jax.jit(model.init)(jax.random.key(0), batch[0])["batch_stats"]
    stats = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full_like(leaf, path[-1].key == "var"), stats
    )
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    loop = linen.loop(model, flat(case.given["weights"]), optimizer, stats=stats)
    return {"TrainState, jit": repeated(loop, batch)}
