"""A convolutional network has fewer parameters than a dense one, reads as well, and bears shifted pictures better.

Claim X52, row M42: the dense network of 784, 16, 16 and 10 units with its 13,002 parameters, a wider one, and a
small convolutional network whose mean over all places makes it almost blind to where a digit stands. All are
trained on MNIST digits as they come, centred, and then tried on held-out digits moved by up to eight pixels.

Refuted if the convolutional network has more parameters than the smaller dense one, reads fewer of the digits in
place than it, or loses more than half as much as either dense network where digits are moved by four pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import learning
from experiments.figures import axes, pictures
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, models, optim

SHIFTS = (0, 1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 4000
    epochs: int = 8
    seeds: int = 2


def networks() -> dict[str, pn.Layer]:
    """By name; all take pictures ``[batch, 28, 28, 1]``."""

    def block(n_in: int, n_out: int) -> pn.Layer:
        return pn.serial(
            conv=pn.conv(n_in, n_out, 3, bias=False),
            norm=pn.batch_norm(n_out, momentum=0.9),
            relu=jax.nn.relu,
        )

    return {
        "dense, 16 and 16": pn.serial(flat=pn.flatten(), mlp=models.mlp((784, 16, 16, 10))),
        "dense, 256 and 256": pn.serial(flat=pn.flatten(), mlp=models.mlp((784, 256, 256, 10))),
        "convolutional": pn.serial(
            block_1=block(1, 12),
            pool_1=pn.max_pool(2),
            block_2=block(12, 24),
            pool_2=pn.max_pool(2),
            block_3=block(24, 40),
            mean=pn.global_average_pool(),
            head=pn.dense(40, 10),
        ),
    }


def moved(x: Any, by: int) -> Any:
    """Every picture moved by so many pixels, up, down, left and right in turn, with empty paper behind."""

    def along(axis: int, by: int) -> Any:
        rolled = jnp.roll(x, by, axis)
        index = jnp.arange(x.shape[axis])
        new = (index < by) if by > 0 else (index >= x.shape[axis] + by)
        return jnp.where(jnp.expand_dims(new, [a for a in range(x.ndim) if a != axis]), 0.0, rolled)

    return jnp.concatenate([along(axis, sign * by) for axis in (1, 2) for sign in (1, -1)]) if by else x


def shares(model: pn.Layer, params: Any, state: Any, test: Any) -> np.ndarray:
    """The share of test digits right for each seed and shift, ``[seeds, shifts]``."""
    x, y = test

    @jax.jit
    def right(params: Any, state: Any, x: Any, y: Any) -> Any:
        read = lambda p, s: jnp.mean(jnp.argmax(model.apply(p, s, x)[0], -1) == y)
        return jax.lax.map(lambda each: read(*each), (params, state))

    return np.stack([right(params, state, moved(x, by), jnp.tile(y, 4 if by else 1)) for by in SHIFTS], -1)


def decide(sizes: dict[str, int], right: dict[str, list[float]]) -> Verdict:
    """By the numbers of parameters and the shares right by shift."""
    far = SHIFTS.index(4)
    loss = {name: line[0] - line[far] for name, line in right.items()}
    small, wide, conv = "dense, 16 and 16", "dense, 256 and 256", "convolutional"
    fewer = sizes[conv] <= sizes[small]
    return verdict(
        fewer and right[conv][0] >= right[small][0] and loss[conv] <= min(loss[small], loss[wide]) / 2
    )


def run(config: Config) -> Report:
    """Train all, then move the digits."""
    train, test = data.train_test_split(data.mnist("test"), 2000, jax.random.key(2024))
    train = jax.tree.map(lambda leaf: leaf[: config.examples], train)
    steps = config.epochs * (len(train[1]) // 64)
    sizes, right, spread = {}, {}, {}
    for name, model in networks().items():
        optimizer = optim.adam(optim.cosine_onecycle_schedule(steps, 5e-3))
        found = learning(model, optimizer, train, test, epochs=config.epochs, seeds=config.seeds)
        sizes[name] = sum(leaf[0].size for leaf in jax.tree.leaves(found.params))
        each = shares(model, found.params, found.state, test)
        right[name] = [float(share) for share in each.mean(0)]
        spread[name] = each.std(0, ddof=1) if config.seeds > 1 else np.zeros(len(SHIFTS))
    figure, panel = axes("pixels that the digits are moved by", "share read right")
    for name, line in right.items():
        panel.errorbar(SHIFTS, line, spread[name], label=f"{name}: {sizes[name]:,} parameters", capsize=2)
    panel.set_ylim(0, 1)
    panel.legend(frameon=False)
    far = SHIFTS.index(4)
    examples = np.concatenate([np.asarray(moved(test[0][:1], by))[..., 0] for by in (0, 4)])
    return Report(
        numbers={f"parameters, {name}": size for name, size in sizes.items()}
        | {f"right when moved by {list(SHIFTS)}, {name}": line for name, line in right.items()},
        verdict=decide(sizes, right),
        because="; ".join(
            f"{name}: {sizes[name]:,} parameters, {right[name][0]:.1%} right in place and {right[name][far]:.1%} "
            "moved by four pixels"
            for name in right
        ),
        figures={
            "moved_digits": figure,
            "a_digit_moved": pictures(examples, ["in place", "down", "up", "right", "left"], columns=5),
        },
        tables={
            "share right by shift": Table(
                ["network", *map(str, SHIFTS)],
                [[name, *(f"{r:.3f}" for r in line)] for name, line in right.items()],
            )
        },
    )
