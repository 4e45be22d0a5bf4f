"""Small rates crawl, good ones arrive, large ones fly off; a rate that decays ends below the floor of the noise.

Claims X19 (row W05) and X20. Plain descent on theta^2/2 multiplies theta by 1 - rate at each step: monotone below
1, one step at 1, in turns between 1 and 2, a period of two at 2, away beyond. Least squares of many features
draws the line at 2 over the largest curvature. A network on handwritten digits has the same three regimes.
Then stochastic descent on least squares, with fresh examples at each step, under a constant rate, a constant rate
ten times smaller, and four decaying rates (Robbins & Monro 1951 for 1/t).

Refuted if an iterate of the bowl is in another regime than the table says; if the largest rate at which least
squares converges is not 2 over the curvature to the spacing of the rates; if the network's best rate does not lie
within the range, with losses twice as large at both ends; or if a decaying rate ends no lower than half the floor of
the constant rate it begins with, or none of them is sooner than the small constant rate at the latter's own floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim

REGIMES = {0.1: "monotone", 0.5: "monotone", 1.0: "one step", 1.5: "in turns", 2.0: "period two", 2.5: "away"}
"""The table of row W05."""


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    rates: int = 17
    """Of the network, from 1e-4 to 30."""
    epochs: int = 5
    seeds: int = 8
    steps: int = 4000
    """Of the noisy descent."""
    features: int = 20
    batch_size: int = 4
    rate: float = 0.1
    """Of the noisy descent, to begin with."""


def descent(rate: Any, steps: int = 40) -> jax.Array:
    """The iterates on theta^2/2 from 1, ``[steps + 1]``."""
    optimizer = optim.sgd(rate)

    def step(carry: Any, _: None) -> Any:
        theta, state = carry
        update, state = optimizer.update(jax.grad(lambda theta: theta**2 / 2)(theta), state, theta)
        return (theta + update, state), theta + update

    start = jnp.float32(1)
    _, found = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    return jnp.concatenate([start[None], found])


def regime(iterates: np.ndarray) -> str:
    """What a sequence of iterates does, in the words of the table."""
    size = np.abs(iterates)
    if size[1] == 0:
        return "one step"
    if size[-1] > 10 * size[0]:
        return "away"
    if np.all(iterates[2:] == iterates[:-2]):
        return "period two"
    return "monotone" if np.all(iterates >= 0) else "in turns"


def largest_stable_rate(curvature: np.ndarray, rates: np.ndarray, steps: int = 3000) -> float:
    """The largest of the rates under which descent on a bowl with these curvatures, from ones, shrinks."""
    bend = jnp.asarray(curvature, jnp.float32)

    def end(rate: jax.Array) -> jax.Array:
        walk = lambda _, x: x - rate * jax.grad(lambda x: jnp.sum(bend * x**2) / 2)(x)
        return jnp.abs(jax.lax.fori_loop(0, steps, walk, jnp.ones_like(bend))).max()

    return float(rates[np.asarray(jax.jit(jax.vmap(end))(jnp.asarray(rates, jnp.float32))) < 1].max())


def network_losses(config: Config, rates: np.ndarray) -> np.ndarray:
    """The mean loss of a network on digits in each epoch, ``[rates, seeds, epochs]``; infinite if not a number."""
    train, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, 32, 10)))

    def run(key: Any, rate: jax.Array) -> jax.Array:
        step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.sgd(rate))
        ts = pn.start(model, step.optimizer, key)
        _, metrics = pn.train(step, ts, train, epochs=config.epochs, batch_size=64, ahead=0)
        return metrics["loss"].mean(-1)

    found = np.asarray(pn.sweep(run, {"rate": rates}, seeds=config.seeds).results)
    return np.where(np.isfinite(found), found, np.inf).reshape(len(rates), config.seeds, -1)


def schedules(config: Config) -> dict[str, Callable[[Any], Any]]:
    """By name. The decaying rates all begin like the constant one and end a hundred times smaller or less."""
    rate, steps = config.rate, config.steps
    return {
        "constant": optim.constant_schedule(rate),
        "constant, a tenth": optim.constant_schedule(rate / 10),
        "1/t": optim.inverse_time(rate, steps // 100),
        "exponential": optim.exponential_decay(rate, steps, 0.01),
        "in steps": optim.exponential_decay(rate, steps // 4, 0.1, staircase=True),
        "cosine": optim.cosine_decay_schedule(rate, steps),
    }


def noisy_descent(config: Config, schedule: Callable[[Any], Any]) -> np.ndarray:
    """The excess of the expected loss over its least value after each step, ``[seeds, steps]``."""
    optimizer = optim.sgd(schedule)
    objective = pn.supervised(pn.dense(config.features, 1, bias=False), losses.half_squared_error)
    truth = jnp.ones((config.features, 1))

    def run(key: Any) -> jax.Array:
        def step(carry: Any, i: jax.Array) -> Any:
            params, state = carry
            batch = data.linear_regression(jax.random.fold_in(key, i), config.batch_size, truth, noise=1.0)
            grads = jax.grad(lambda p: objective(p, {}, batch, None, True)[0])(params)
            update, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, update)
            # For standard normal inputs the expected loss is half the squared distance, plus a constant.
            return (params, state), jnp.sum((params["kernel"] - truth) ** 2) / 2

        start = {"kernel": jnp.zeros_like(truth)}
        return jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(config.steps))[1]

    return np.asarray(pn.sweep(run, seeds=config.seeds).results)


def floors(excess: np.ndarray) -> np.ndarray:
    """The mean excess over the last tenth of the steps, ``[seeds]``."""
    return excess[:, -max(1, excess.shape[1] // 10) :].mean(1)


def decide(
    regimes: dict[float, str],
    stable: tuple[float, float],
    losses_by_rate: np.ndarray,
    floor: dict[str, float],
    arrives: dict[str, int],
) -> Verdict:
    """By the regimes, the measured and expected stable rate, the network's losses and the floors and arrivals."""
    best = int(np.argmin(losses_by_rate))
    least = losses_by_rate[best]
    between = 0 < best < len(losses_by_rate) - 1 and min(losses_by_rate[0], losses_by_rate[-1]) > 2 * least
    decays = [name for name in floor if not name.startswith("constant")]
    lower = all(floor[name] < floor["constant"] / 2 for name in decays)
    sooner = min(arrives[name] for name in decays) < arrives["constant, a tenth"]
    return verdict(
        regimes == REGIMES and 0.9 < stable[0] / stable[1] <= 1.001 and between and lower and sooner
    )


def run(config: Config) -> Report:
    """The bowl, least squares, the network, then descent with noise."""
    iterates = {rate: np.asarray(descent(rate)) for rate in REGIMES}
    regimes = {rate: regime(path) for rate, path in iterates.items()}

    x, _ = data.linear_regression(jax.random.key(0), 200, jnp.ones(config.features))
    curvature = np.linalg.eigvalsh(np.asarray(x.T @ x, np.float64) / len(x))
    expected = float(2 / curvature[-1])
    stable = largest_stable_rate(curvature, expected * np.geomspace(0.1, 10, 81))

    rates = np.geomspace(1e-4, 30, config.rates)
    by_epoch = network_losses(config, rates)
    last = by_epoch[..., -1].mean(1)
    best = int(np.argmin(last))

    excess = {name: noisy_descent(config, schedule) for name, schedule in schedules(config).items()}
    floor = {name: float(floors(line).mean()) for name, line in excess.items()}
    means = {name: line.mean(0) for name, line in excess.items()}
    level = 1.1 * floor["constant, a tenth"]
    arrives = {
        name: int(np.argmax(line <= level)) + 1 if (line <= level).any() else config.steps + 1
        for name, line in means.items()
    }

    figure, panel = axes("learning rate", f"loss in epoch {config.epochs} (nats)")
    shown = np.where(np.isfinite(by_epoch[..., -1]), by_epoch[..., -1], np.nan)
    panel.plot(rates, np.nanmean(np.where(shown < 1e3, shown, np.nan), 1), marker="o")
    panel.set_xscale("log")
    panel.set_yscale("log")
    deviation = lambda name: float(floors(excess[name]).std(ddof=1)) if config.seeds > 1 else float("nan")
    return Report(
        numbers={f"regime at rate {rate}": name for rate, name in regimes.items()}
        | {
            "largest rate that converges, least squares": stable,
            "2 over the largest curvature": expected,
            "network, best rate": float(rates[best]),
            "network, loss at its best rate: mean, deviation": [
                float(last[best]),
                float(by_epoch[best, :, -1].std(ddof=1)) if config.seeds > 1 else float("nan"),
            ],
            "network, loss at the smallest rate": float(last[0]),
            "network, loss at the largest rate": float(last[-1]),
        }
        | {f"floor, {name}: mean, deviation": [value, deviation(name)] for name, value in floor.items()}
        | {f"steps to the floor of a tenth, {name}": count for name, count in arrives.items()},
        verdict=decide(regimes, (stable, expected), last, floor, arrives),
        because=f"least squares converges up to {stable:.3g}, 2 over its curvature is {expected:.3g}; the network is "
        f"best at {rates[best]:.2g} ({last[best]:.2g} nats) and worse at both ends ({last[0]:.2g}, {last[-1]:.2g}); "
        + "excess at the end: "
        + ", ".join(f"{name} {value:.1e}" for name, value in floor.items()),
        figures={
            "descent_on_a_bowl": curves(
                {f"rate {rate}": path[:9] for rate, path in iterates.items()},
                x="steps",
                y="theta",
                at=np.arange(9),
            ),
            "loss_by_rate": figure,
            "noise_floor": curves(means, x="step", y="excess of the expected loss", log="xy"),
        },
        tables={
            "The first iterates": Table(
                ["rate", "regime", "iterates"],
                [
                    [rate, regimes[rate], ", ".join(f"{x:.4g}" for x in path[:5])]
                    for rate, path in iterates.items()
                ],
            )
        },
    )
