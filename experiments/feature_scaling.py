"""On features of unequal scales one rate swings along the large one and crawls along the small; scaled, neither.

Claim X57. Least squares on two features, the second's deviation many times the first's. The weight of the large
feature has the larger curvature, by the square of the ratio, so it sets the largest stable rate, 2 over its curvature,
and the other weight waits. The same data with mean 0 and deviation 1 (purenets.data.preprocess).

Refuted if, each at its best rate, raw features do not need at least a quarter of the ratio's square times the steps of
standardised ones; if near the stable rate the weight of the large feature does not swing about its end or the other
does; or if the first step is not larger for the weight of the large feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, optim
from purenets.data.preprocess import standardise, standardiser


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    ratio: float = 20.0
    examples: int = 200
    rates: int = 41
    steps: int = 4000
    tolerance: float = 1e-3
    """Of the loss above its least, over that at the start."""
    seeds: int = 8


def sample(key: Any, config: Config) -> tuple[jax.Array, jax.Array]:
    """Features ``[n, 2]`` of deviation 1 and ``ratio``, with equal shares in the targets ``[n]``."""
    scale = jnp.array([1.0, config.ratio])
    x, y = data.linear_regression(key, config.examples, jnp.ones(2), noise=0.1)
    return x * scale, y


def walk(x: jax.Array, y: jax.Array, rate: Any, steps: int) -> tuple[jax.Array, jax.Array]:
    """Weights ``[steps + 1, 2]`` of descent from zeros, and the excess of the loss over its least."""
    objective = pn.supervised(pn.dense(2, 1), losses.half_squared_error)
    loss_of = lambda p: objective(p, {}, (x, y[:, None]), None, True)[0]
    design = jnp.concatenate([x, jnp.ones((len(x), 1))], 1)
    best = jnp.linalg.lstsq(design, y)[0]
    least = jnp.mean((design @ best - y) ** 2) / 2
    optimizer = optim.sgd(rate)
    start = {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        update, state = optimizer.update(jax.grad(loss_of)(params), state, params)
        params = optim.apply_updates(params, update)
        return (params, state), (params["kernel"][:, 0], loss_of(params))

    _, (weights, loss) = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    weights = jnp.concatenate([start["kernel"].T, weights])
    return weights, (jnp.concatenate([loss_of(start)[None], loss]) - least) / (loss_of(start) - least)


def swings(weights: np.ndarray, end: np.ndarray, steps: int = 20) -> np.ndarray:
    """How often each weight crosses its final value in the first steps, ``[2]``."""
    side = np.sign(weights[:steps] - end)
    return np.sum(side[1:] * side[:-1] < 0, 0)


def decide(raw: float, scaled: float, crossed: np.ndarray, ratio: float, first: np.ndarray) -> Verdict:
    """By the steps at the best rates, the crossings of both weights and their first steps."""
    slower = raw >= scaled * ratio**2 / 4
    return verdict(bool(slower and crossed[1] >= 10 and crossed[0] == 0 and abs(first[1]) > abs(first[0])))


def run(config: Config) -> Report:
    """All rates on raw and standardised features."""
    rates = np.geomspace(1e-4, 3, config.rates)

    def race(key: Any, rate: jax.Array) -> Any:
        x, y = sample(key, config)
        found = []
        for given in (x, standardise(standardiser(x), x)):
            excess = walk(given, y, rate, config.steps)[1]
            there = excess <= config.tolerance
            found.append(jnp.where(there[-1], jnp.argmax(there), config.steps + 1))
        return tuple(found)

    found = pn.sweep(race, {"rate": rates}, seeds=config.seeds).results
    steps = [np.asarray(each, np.float64).reshape(config.rates, config.seeds) for each in found]
    best = [int(np.argmin(each.mean(1))) for each in steps]
    raw, scaled = (float(each[i].mean()) for each, i in zip(steps, best, strict=True))

    x, y = sample(jax.random.key(1), config)
    curvature = np.linalg.eigvalsh(np.asarray(x.T @ x, np.float64) / len(x))
    rate = 1.9 / curvature[-1]
    weights = np.asarray(walk(x, y, rate, config.steps)[0])
    crossed = swings(weights, np.linalg.lstsq(np.asarray(x), np.asarray(y))[0])
    first = weights[1]
    flat = np.asarray(walk(*_standardised(x, y), 0.5, 40)[0])

    figure, panels = axes("weight of the small feature", "weight of the large feature", columns=2, width=9)
    for panel, path, title in zip(
        panels.flat, (weights[:60], flat), (f"raw, rate {rate:.2g}", "standardised, rate 0.5"), strict=True
    ):
        panel.plot(*path.T, marker=".", linewidth=0.8)
        panel.set_title(title)
    by_rate, panel = axes("learning rate", "steps")
    for name, each in zip(("raw", "standardised"), steps, strict=True):
        mean = each.mean(1)
        panel.plot(rates[mean <= config.steps], mean[mean <= config.steps], marker="o", label=name)
    panel.set(xscale="log", yscale="log")
    panel.legend(frameon=False)
    return Report(
        numbers={
            "steps at the best rate, raw: mean, deviation": [raw, _deviation(steps[0][best[0]])],
            "steps at the best rate, standardised: mean, deviation": [scaled, _deviation(steps[1][best[1]])],
            "best rate, raw": float(rates[best[0]]),
            "best rate, standardised": float(rates[best[1]]),
            "times as many steps": raw / max(scaled, 1),
            "condition number, raw": float(curvature[-1] / curvature[0]),
            "first step of the weights, small and large feature": first.tolist(),
            "times that each crosses its end in 20 steps": crossed.tolist(),
        },
        verdict=decide(raw, scaled, crossed, config.ratio, first),
        because=f"at its best rate it takes {raw:.0f} steps on raw features and {scaled:.0f} on standardised ones; "
        f"near the stable rate the weight of the large feature crosses its end {crossed[1]} times in 20 steps, the "
        f"other {crossed[0]} times",
        figures={"paths_of_the_weights": figure, "steps_by_rate": by_rate},
        tables={
            "at the best rates": Table(
                ["features", "rate", "steps"],
                [["raw", f"{rates[best[0]]:.2g}", raw], ["standardised", f"{rates[best[1]]:.2g}", scaled]],
            )
        },
    )


def _standardised(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return standardise(standardiser(x), x), y


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
