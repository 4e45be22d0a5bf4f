"""What a training step and its first call cost for residual networks, beside Flax linen and Flax nnx.

``python -m benchmarks.vision``: ResNet-20 for 32 x 32 images with batch norm, batch 64, momentum; and the time
to trace and compile the training step of ResNet-20 and ResNet-110. Every contestant runs optax's optimizer and
jits a donated step, nnx by its split form (the cheapest of its forms for a step of this size).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import purenets as pn
from benchmarks.harness import compare, ratios, show
from purenets import losses, models

LIBRARIES = ("optax", "flax")
BATCH, CLASSES = 64, 10
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
Start = Callable[[], Any]
Step = Callable[[Any, jax.Array, jax.Array], tuple[Any, Any]]


def _cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _purenets(depth: int, scan: bool) -> tuple[Start, Step]:
    model = models.resnet_cifar(depth, CLASSES, scan=scan)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), OPTIMIZER)
    return lambda: pn.start(model, OPTIMIZER, jax.random.key(0)), lambda ts, x, y: step(ts, (x, y))


class _LinenBlock(nn.Module):
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = lambda stride: nn.Conv(
            self.channels, (3, 3), (stride, stride), padding=((1, 1), (1, 1)), use_bias=False
        )
        norm = lambda: nn.BatchNorm(use_running_average=False, momentum=0.9)
        y = nn.relu(norm()(conv(self.stride)(x)))
        y = norm()(conv(1)(y))
        if x.shape != y.shape:
            extra = (y.shape[-1] - x.shape[-1]) // 2
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0),) * 3 + ((extra, extra),))
        return nn.relu(x + y)


class _LinenResNet(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(16, (3, 3), padding=((1, 1), (1, 1)), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9)(x))
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                x = _LinenBlock(16 * 2**stage, 2 if stage and not block else 1)(x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def _linen(depth: int) -> tuple[Start, Step]:
    model = _LinenResNet(depth)

    def start() -> Any:
        variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        return variables["params"], variables["batch_stats"], OPTIMIZER.init(variables["params"])

    def step(carry: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        params, stats, opt_state = carry

        def loss(params: Any) -> Any:
            logits, new = model.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
            return _cross_entropy(logits, y), new["batch_stats"]

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), value

    return start, step


class _NnxBlock(nnx.Module):
    def __init__(self, n_in: int, n_out: int, stride: int, rngs: nnx.Rngs) -> None:
        conv = lambda n_in, stride: nnx.Conv(
            n_in,
            n_out,
            (3, 3),
            strides=stride,
            padding=((1, 1), (1, 1)),
            use_bias=False,
            rngs=rngs,
        )
        self.conv_1, self.conv_2 = conv(n_in, stride), conv(n_out, 1)
        self.norm_1, self.norm_2 = (nnx.BatchNorm(n_out, momentum=0.9, rngs=rngs) for _ in range(2))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        if x.shape != y.shape:
            extra = (y.shape[-1] - x.shape[-1]) // 2
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0),) * 3 + ((extra, extra),))
        return nnx.relu(x + y)


class _NnxResNet(nnx.Module):
    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 16, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        blocks, n_in = [], 16
        for stage in range(3):
            for block in range((depth - 2) // 6):
                blocks.append(_NnxBlock(n_in, 16 * 2**stage, 2 if stage and not block else 1, rngs))
                n_in = 16 * 2**stage
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(64, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def _nnx(depth: int) -> tuple[Start, Step]:
    graph, *_ = nnx.split(nnx.eval_shape(lambda: _NnxResNet(depth, nnx.Rngs(0))), nnx.Param, ...)

    def start() -> Any:
        _, params, rest = nnx.split(_NnxResNet(depth, nnx.Rngs(0)), nnx.Param, ...)
        return params, rest, OPTIMIZER.init(params)

    def step(carry: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        params, rest, opt_state = carry

        def loss(params: Any) -> Any:
            model = nnx.merge(graph, params, rest, copy=True)
            value = _cross_entropy(model(x), y)
            return value, nnx.split(model, nnx.Param, ...)[2]

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), rest, opt_state), value

    return start, step


def _stepper(start: Start, step: Step) -> Callable[[], Any]:
    x = jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3))
    y = jax.random.randint(jax.random.key(2), (BATCH,), 0, CLASSES)
    jitted, carry = jax.jit(step, donate_argnums=0), [start()]

    def call() -> Any:
        carry[0], value = jitted(carry[0], x, y)
        return value

    return call


def _first_call(start: Start, step: Step) -> float:
    """Seconds to trace and compile the step, from nothing."""
    carry = jax.eval_shape(start)
    x, y = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    jax.clear_caches()
    started = time.perf_counter()
    jax.jit(step).lower(carry, x, y).compile()
    return time.perf_counter() - started


def main(rounds: int = 15, first_rounds: int = 3) -> None:
    """Print the tables."""
    steps = {
        "linen": _linen(20),
        "purenets, repeat": _purenets(20, True),
        "purenets, one after another": _purenets(20, False),
        "nnx": _nnx(20),
    }
    show(
        "ResNet-20 training step",
        compare({name: _stepper(*pair) for name, pair in steps.items()}, rounds=rounds, calls=1),
        packages=LIBRARIES,
    )
    deep = {
        "linen": _linen(110),
        "purenets, repeat": _purenets(110, True),
        "purenets, one after another": _purenets(110, False),
    }
    show(
        "ResNet-110 training step",
        compare({name: _stepper(*pair) for name, pair in deep.items()}, rounds=max(rounds // 3, 1), calls=1),
        packages=LIBRARIES,
    )
    for title, contestants in (("ResNet-20", steps), ("ResNet-110", deep)):
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(first_rounds):
            for name, pair in contestants.items():
                times[name].append(_first_call(*pair))
        show(f"{title}: time to trace and compile", ratios(times), packages=LIBRARIES)


if __name__ == "__main__":
    main()
