"""A support vector machine and a network on the same digits: who is better with few examples, and whose time grows how.

Claim X60, from a table that says: the machine works well with small to medium data and its training is quadratic in
the examples; the network requires large data. Even or odd is read from scikit-learn's 8 x 8 digits, from few and
from many examples drawn again for each seed, the same number being kept for the test. The machine is the dual of a
Gaussian kernel with ``gamma = 1 / (features variance)`` and cost 1, the usual choice where nothing is tuned; the
network a layer of ReLUs trained by Adam. Time is that of training alone, compiled before, the least of several runs,
on spirals, of which there are as many as wanted.

Refuted if with few examples the network is the better one by more than a point, with many the machine by more than a
point, or if the exponent of the time in the number of examples, over the three largest numbers, is under 1.6 for the
machine or over 1.3 for the network. Left open by a dual that is not solved to a gap of 5 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.classic import svm


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: tuple[int, ...] = (20, 50, 100, 200, 400, 800, 1400)
    seeds: int = 8
    timed: tuple[int, ...] = (500, 1000, 2000, 4000)
    repeats: int = 5
    cost: float = 1.0
    sweeps: int = 400
    hidden: int = 64
    epochs: int = 60
    steps: int = 600
    """The fewest steps of the network, however few the examples."""
    batch_size: int = 20


def machine(x: jax.Array, y: jax.Array, config: Config) -> tuple[svm.SVM, svm.Kernel]:
    """The dual, solved, and its kernel; labels 0 and 1."""
    gamma: Any = 1 / (x.shape[1] * x.var())
    kernel = svm.rbf(gamma)
    return svm.fit_svm(x, 2.0 * y - 1, kernel, cost=config.cost, sweeps=config.sweeps), kernel


def network(key: jax.Array, x: jax.Array, y: jax.Array, config: Config) -> Callable[[jax.Array], jax.Array]:
    """Trained for whole epochs; returns its scores."""
    model = models.mlp((x.shape[1], config.hidden, 1))
    objective = pn.supervised(model, lambda out, y: losses.sigmoid_binary_cross_entropy(out[:, 0], y))
    optimizer = optim.adam(3e-3)
    epochs = max(config.epochs, config.steps // (len(x) // config.batch_size))
    ts, _ = pn.train(
        pn.make_step(objective, optimizer),
        pn.start(model, optimizer, key),
        (x, y.astype(jnp.float32)),
        epochs=epochs,
        batch_size=config.batch_size,
        ahead=0,
    )
    return lambda x: model.apply(ts.params, ts.state, x)[0][:, 0]


def shares(key: jax.Array, n: int, config: Config) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The shares of the digits left over that the machine and the network read right, and the machine's gap."""
    images, labels = data.digits()
    x, y = images.reshape(len(images), -1), labels % 2
    order, weights = jax.random.split(key)
    places = jax.random.permutation(order, len(x))
    x, y = x[places], y[places]
    # All tests are on the same number of digits, whatever was trained on.
    held = len(x) - max(config.examples)
    found, kernel = machine(x[:n], y[:n], config)
    score = network(weights, x[:n], y[:n], config)
    right = [
        jnp.mean((scores > 0) == (y[-held:] == 1))
        for scores in (svm.svm_score(found, x[-held:], kernel), score(x[-held:]))
    ]
    return right[0], right[1], found.gap


def seconds(fn: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> float:
    """The least time of the compiled function over its arguments, after one call that does not count."""
    compiled = jax.jit(fn)
    taken = []
    for given in [arguments[0], *arguments]:
        started = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def times(config: Config) -> dict[str, list[float]]:
    """Seconds of training on spirals, by their number. The network does the epochs it is given, no more."""
    found: dict[str, list[float]] = {"machine": [], "network": []}
    for n in config.timed:
        x, y = data.spirals(jax.random.key(0), n)
        fit = lambda x, y: machine(x, y, config)[0].weights
        found["machine"].append(seconds(fit, [(x, y)] * config.repeats))
        plain = Config(hidden=config.hidden, epochs=config.epochs, steps=0, batch_size=config.batch_size)
        train = lambda key, x, y, plain=plain: network(key, x, y, plain)(x)
        found["network"].append(seconds(train, [(jax.random.key(i), x, y) for i in range(config.repeats)]))
    return found


def exponent(n: tuple[int, ...], taken: list[float]) -> float:
    """Of the time, over the three largest numbers."""
    return float(np.polyfit(np.log(n[-3:]), np.log(taken[-3:]), 1)[0])


def decide(few: dict[str, float], many: dict[str, float], growth: dict[str, float], gap: float) -> Verdict:
    """By the shares that are right with few and with many examples, the exponents of the times, and the dual's gap."""
    better = few["machine"] >= few["network"] - 0.01 and many["network"] >= many["machine"] - 0.01
    return verdict(better and growth["machine"] >= 1.6 and growth["network"] <= 1.3, enough=gap <= 0.05)


def run(config: Config) -> Report:
    """Accuracy by the number of examples, then time."""
    right: dict[str, list[np.ndarray]] = {"machine": [], "network": []}
    gaps = []
    for n in config.examples:
        keys = jax.random.split(jax.random.key(0), config.seeds)  # the same order of the digits for every n
        own, nets, gap = jax.jit(jax.vmap(lambda key, n=n: shares(key, n, config)))(keys)
        right["machine"].append(np.asarray(own))
        right["network"].append(np.asarray(nets))
        gaps.append(float(gap.max()))
    means = {name: [float(each.mean()) for each in found] for name, found in right.items()}
    taken = times(config)
    growth = {name: exponent(config.timed, each) for name, each in taken.items()}
    few, many = ({name: each[place] for name, each in means.items()} for place in (0, -1))
    accuracy, panel = axes("examples", "share read right (mean of the seeds)")
    clock, timed = axes("examples", "seconds of training")
    for name in right:
        panel.semilogx(config.examples, means[name], marker="o", label=name)
        timed.loglog(config.timed, taken[name], marker="o", label=f"{name}, exponent {growth[name]:.2f}")
    panel.legend(frameon=False)
    timed.legend(frameon=False)
    return Report(
        numbers={
            **{f"{name}: right with {config.examples[0]} examples": share for name, share in few.items()},
            **{f"{name}: right with {config.examples[-1]} examples": share for name, share in many.items()},
            **{f"{name}: exponent of the time": value for name, value in growth.items()},
            **{f"{name}: seconds for {config.timed[-1]}": each[-1] for name, each in taken.items()},
            "largest gap of the dual": max(gaps),
        },
        verdict=decide(few, many, growth, max(gaps)),
        because=f"with {config.examples[0]} examples the machine reads {few['machine']:.1%} right and the network "
        f"{few['network']:.1%}, with {config.examples[-1]} {many['machine']:.1%} and {many['network']:.1%}; the time "
        f"grows with the power {growth['machine']:.2f} and {growth['network']:.2f} of their number",
        figures={"accuracy_by_examples": accuracy, "time_by_examples": clock},
        tables={
            "Share read right": Table(
                ["", *map(str, config.examples)], [[name, *each] for name, each in means.items()]
            ),
            "Seconds": Table(["", *map(str, config.timed)], [[name, *each] for name, each in taken.items()]),
        },
    )
