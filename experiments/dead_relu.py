"""ReLU trains in fewer steps than tanh and sigmoid, but its units can die; leaky ones cannot.

Claims X07 and X08. (1) A network of four hidden layers on handwritten digits, every activation at the learning rate,
of many, under which it needs the fewest steps to a training error of 25 %: Krizhevsky, Sutskever & Hinton 2012 (figure
1) saw ReLU there six times as soon as tanh, with four convolutional layers on CIFAR-10. (2) A phase with far too large
a rate, then one with a good rate. A unit is silent if no training example gives it a positive input, and dead if the
loss then does not depend on its weights either, as for ReLU; the slope of 0.01 of a leaky unit is never zero (Maas et
al. 2013).

Refuted if tanh or sigmoid is there as soon as ReLU; or if fewer than a twentieth of the ReLU units are dead after
both phases, or a leaky unit is. How many leaky units stay silent, though alive, is reported; so are the steps to
an error of 2 %.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, initializers, losses, metrics, models, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    hidden: tuple[int, ...] = (64, 64, 64, 64)
    epochs: int = 40
    rates: int = 8
    seeds: int = 4
    error: float = 0.25
    large: float = 1.5
    """The rate of the phase that is too fast."""
    good: float = 0.05
    phase: int = 5
    """Epochs with the large rate, and twice as many with the good one."""


ACTIVATIONS = {
    "ReLU": (jax.nn.relu, initializers.kaiming_normal()),
    "tanh": (jnp.tanh, initializers.glorot_normal()),
    "sigmoid": (jax.nn.sigmoid, initializers.glorot_normal()),
}
"""Each with the draw of weights that was made for it."""


def deep(activation: Any, init: Any, sizes: tuple[int, ...]) -> pn.Layer:
    """Dense layers of these sizes with the activation between them."""
    layers = [pn.dense(n_in, n_out, kernel_init=init) for n_in, n_out in itertools.pairwise(sizes)]
    between = [each for layer in layers for each in (activation, layer)]
    return pn.serial(pn.flatten(), *between[1:])


def errors(activation: Any, init: Any, rates: np.ndarray, config: Config, train: Any) -> np.ndarray:
    """The training error, a mean over an epoch's length of steps, ``[rates, seeds, steps]``."""
    model = deep(activation, init, (64, *config.hidden, 10))
    objective = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})

    def run(key: Any, rate: jax.Array) -> jax.Array:
        step = pn.make_step(objective, optim.sgd(rate))
        ts = pn.start(model, step.optimizer, key)
        return pn.train(step, ts, train, epochs=config.epochs, batch_size=64, ahead=0)[1]["accuracy"].ravel()

    right = np.asarray(pn.sweep(run, {"rate": rates}, seeds=config.seeds).results, np.float64)
    window = len(train[1]) // 64
    sums = np.cumsum(np.pad(1 - right, ((0, 0), (1, 0))), 1)
    return ((sums[:, window:] - sums[:, :-window]) / window).reshape(len(rates), config.seeds, -1)


def steps_to(error: np.ndarray, level: float, window: int) -> np.ndarray:
    """The step at which the mean over the last ``window`` steps first is at most the level; infinite if never."""
    there = error <= level
    return np.where(there.any(-1), there.argmax(-1) + float(window), np.inf)


def silence(activation: Any, config: Config, train: Any) -> dict[str, np.ndarray]:
    """Shares of hidden units silent after each phase and dead after both, ``[seeds]`` each.

    One hidden layer, so that a unit's state is its own and not that of the units before it.
    """
    units = config.hidden[0]
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, units, 10), activation=activation))
    objective = pn.supervised(model, losses.softmax_cross_entropy)

    def silent(params: Any) -> jax.Array:
        first = params["mlp"]["dense_1"]
        return jnp.all(train[0].reshape(len(train[0]), -1) @ first["kernel"] + first["bias"] <= 0, 0)

    def run(key: Any) -> dict[str, jax.Array]:
        fast, slow = (pn.make_step(objective, optim.sgd(rate)) for rate in (config.large, config.good))
        ts = pn.start(model, fast.optimizer, key)
        ts, _ = pn.train(fast, ts, train, epochs=config.phase, batch_size=64, ahead=0)
        after = silent(ts.params)
        ts, _ = pn.train(slow, ts, train, epochs=2 * config.phase, batch_size=64, ahead=0)
        slope = jax.grad(lambda p: objective(p, {}, train, None, False)[0])(ts.params)["mlp"]["dense_1"]
        return {
            "silent after the large rate": after.mean(),
            "silent at the end": silent(ts.params).mean(),
            "dead at the end": jnp.all(slope["kernel"] == 0, 0).mean(),
            "loss at the end": objective(ts.params, {}, train, None, False)[0],
        }

    return {name: np.asarray(x) for name, x in pn.sweep(run, seeds=config.seeds).results.items()}


def decide(steps: dict[str, float], shares: dict[str, dict[str, float]]) -> Verdict:
    """By the steps at each one's best rate, and the shares of units."""
    first = steps["ReLU"] < min(steps["tanh"], steps["sigmoid"])
    dead = {name: each["dead at the end"] for name, each in shares.items()}
    return verdict(first and dead["ReLU"] >= 0.05 and dead["leaky"] == 0)


def run(config: Config) -> Report:
    """The race, then the phases."""
    train, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    rates = np.geomspace(0.01, 3, config.rates)
    window = len(train[1]) // 64
    steps, spread, later, lines, best_rate = {}, {}, {}, {}, {}
    for name, (activation, init) in ACTIVATIONS.items():
        error = errors(activation, init, rates, config, train)
        counts = steps_to(error, config.error, window)
        best = int(np.argmin(counts.mean(1)))
        steps[name], best_rate[name] = float(counts[best].mean()), float(rates[best])
        finite = config.seeds > 1 and np.isfinite(counts[best]).all()
        spread[name] = float(counts[best].std(ddof=1)) if finite else float("nan")
        later[name] = float(steps_to(error, 0.02, window).mean(1).min())
        lines[name] = error[best].mean(0)
    phases = {
        name: silence(activation, config, train)
        for name, activation in {"ReLU": jax.nn.relu, "leaky": jax.nn.leaky_relu}.items()
    }
    shares = {name: {what: float(x.mean()) for what, x in each.items()} for name, each in phases.items()}
    return Report(
        numbers={
            f"steps to the error, {name}: mean, deviation": [steps[name], spread[name]] for name in steps
        }
        | {f"steps to an error of 2 %, {name}": count for name, count in later.items()}
        | {f"best rate, {name}": rate for name, rate in best_rate.items()}
        | {"tanh's steps over those of ReLU": steps["tanh"] / steps["ReLU"]}
        | {f"{what}, {name}": x for name, each in shares.items() for what, x in each.items()},
        verdict=decide(steps, shares),
        because=f"steps to a training error of {config.error:.0%}: "
        + ", ".join(f"{name} {count:.0f}" for name, count in steps.items())
        + f"; after a phase at {config.large} {shares['ReLU']['silent after the large rate']:.0%} of the ReLU units "
        f"are silent, in the end {shares['ReLU']['dead at the end']:.0%} dead, of the leaky ones "
        f"{shares['leaky']['silent after the large rate']:.0%} silent and {shares['leaky']['dead at the end']:.0%}",
        figures={
            "training_error": curves(
                lines, x="steps", y="training error", at=window + np.arange(len(lines["ReLU"])), log="x"
            )
        },
        tables={
            "units after a large rate": Table(
                ["activation", *shares["ReLU"]],
                [[name, *(f"{x:.3f}" for x in each.values())] for name, each in shares.items()],
            )
        },
    )
