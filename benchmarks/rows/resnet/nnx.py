"""Flax nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.loops import repeated
from benchmarks.loops.nnx import fill, split_loop
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import DECAY, EPS, MOMENTUM, RATE, flat, sizes, strides


def _conv(n_in: int, n_out: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    padding = ((1, 1), (1, 1))
    return nnx.Conv(n_in, n_out, (3, 3), strides=stride, padding=padding, use_bias=False, rngs=rngs)


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=DECAY, epsilon=EPS, rngs=rngs)


class Block(nnx.Module):
    """Two convolutions and the shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv_1, self.conv_2 = _conv(n_in, n_out, stride, rngs), _conv(n_out, n_out, 1, rngs)
        self.norm_1, self.norm_2 = _norm(n_out, rngs), _norm(n_out, rngs)
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """To the same, or half as large and twice as wide."""
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        if x.shape != y.shape:
            widths = ((0, 0),) * 3 + ((0, y.shape[-1] - x.shape[-1]),)
            x = jnp.pad(x[:, :: self.stride, :: self.stride], widths)
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """The network."""

    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        self.stem, self.norm = _conv(3, 16, 1, rngs), _norm(16, rngs)
        self.count = len(strides(depth))
        for number, (size, stride) in enumerate(zip(sizes(depth), strides(depth), strict=True), 1):
            setattr(self, f"block_{number}", Block(*size, stride, rngs))
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """To logits."""
        x = nnx.relu(self.norm(self.stem(x)))
        for number in range(1, self.count + 1):
            x = getattr(self, f"block_{number}")(x)
        return self.head(x.mean((1, 2)))


def contestants(case: Case) -> dict[str, Call]:
    """Split and merge, the cheaper of the fast forms."""
    model = ResNet(case.given["depth"], nnx.Rngs(0))
    fill(model, flat(case.given["weights"]))
    loop = split_loop(model, optax.sgd(RATE, momentum=MOMENTUM))
    return {"split and merge": repeated(loop, case.given["batch"])}
