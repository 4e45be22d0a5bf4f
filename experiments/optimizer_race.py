"""Four races of optimizers: noisy moons, Beale's function, a long valley, a saddle.

Claims X30 to X35, and X24 and X38, on which the sources disagree. Every rule runs with many learning rates at
once and each is shown at its own best, and how many of the rates do well is reported too. On the valley and
the saddle the start is next to a line of symmetry, where rules that scale each coordinate leave first.

Refuted if on the long valley a rule that scales coordinates (RMSProp, AdaGrad, Adam) does not leave before
plain descent does, or if momentum is not faster than plain descent in the bowl. Who wins on the moons is
reported and not judged.
"""

from __future__ import annotations

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
from purenets.optim import problems


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    steps: int = 400
    rates: int = 25
    seeds: int = 8
    epochs: int = 15


RULES: dict[str, Callable[[Any], Any]] = {
    "descent": lambda rate: optim.sgd(rate),
    "momentum": lambda rate: optim.sgd(rate, momentum=0.9),
    "Nesterov": lambda rate: optim.sgd(rate, momentum=0.9, nesterov=True),
    "AdaGrad": lambda rate: optim.adagrad(rate, initial_accumulator_value=0.0),
    "RMSProp": lambda rate: optim.rmsprop(rate),
    "Adam": lambda rate: optim.adam(rate),
}
SCALED = ("AdaGrad", "RMSProp", "Adam")


def paths(problem: Any, rule: Callable[[Any], Any], rates: jax.Array, steps: int) -> tuple[Any, jax.Array]:
    """Iterates ``[rates, steps, ...]`` and values ``[rates, steps]``, all rates at once."""

    def one(rate: jax.Array) -> Any:
        optimizer = rule(rate)

        def step(carry: Any, _: None) -> Any:
            p, state = carry
            update, state = optimizer.update(jax.grad(problem.fn)(p), state, p)
            p = optim.apply_updates(p, update)
            return (p, state), (p, problem.fn(p))

        return jax.lax.scan(step, (problem.start, optimizer.init(problem.start)), None, length=steps)[1]

    return jax.jit(jax.vmap(one))(rates)


def steps_until(reached: np.ndarray) -> np.ndarray:
    """The first step at which each run ``[runs, steps]`` has arrived and stays; one more than all without one."""
    stays = np.flip(np.logical_and.accumulate(np.flip(reached, 1), 1), 1)
    return np.where(stays.any(1), stays.argmax(1) + 1, reached.shape[1] + 1)


def moons(rule: Callable[[Any], Any], config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Losses ``[rates, seeds]`` and accuracies on new moons, of a small network trained on noisy ones."""
    model = models.mlp((2, 16, 1), activation=jnp.tanh)
    train = data.moons(jax.random.key(0), 256, noise=0.25)
    test = data.moons(jax.random.key(1), 512, noise=0.25)

    def loss(output: jax.Array, label: jax.Array) -> jax.Array:
        return losses.sigmoid_binary_cross_entropy(output[:, 0], label)

    def one(key: Any, rate: jax.Array) -> Any:
        step = pn.make_step(pn.supervised(model, loss), rule(rate))
        ts = pn.start(model, step.optimizer, key)
        ts, metrics = pn.train(step, ts, train, epochs=config.epochs, batch_size=32, ahead=0)
        right = (model.apply(ts.params, ts.state, test[0])[0][:, 0] > 0) == (test[1] > 0)
        return metrics["loss"][-1].mean(), right.mean()

    rates = np.geomspace(1e-3, 3, config.rates)
    found = pn.sweep(one, {"rate": rates}, seeds=config.seeds)
    return tuple(np.asarray(part).reshape(config.rates, config.seeds) for part in found.results)  # type: ignore[return-value]


def decide(leaves: dict[str, int], bowl: dict[str, int]) -> Verdict:
    """By the steps to leave the valley's wall, and to arrive at the bottom of the bowl."""
    first = min(leaves["descent"], leaves["momentum"])
    return verdict(all(leaves[name] < first for name in SCALED) and bowl["momentum"] < bowl["descent"])


def run(config: Config) -> Report:
    """All rules on all courses."""
    rates = jnp.asarray(np.geomspace(1e-4, 2, config.rates))
    courses = {"Beale": problems.beale(), "long valley": problems.long_valley(), "saddle": problems.saddle()}
    figure, panels = axes("", "", columns=3, width=11.0, height=3.8)
    table, numbers = [], {}
    leaves: dict[str, dict[str, int]] = {}
    for panel, (title, problem) in zip(panels.flat, courses.items(), strict=True):
        _contours(panel, problem, title)
        for name, rule in RULES.items():
            points, values = (np.asarray(part) for part in paths(problem, rule, rates, config.steps))
            reached = _arrived(title, points, values)
            count = steps_until(reached)
            best = int(np.argmin(count)) if count.min() <= config.steps else int(np.nanargmin(values[:, -1]))
            leaves.setdefault(title, {})[name] = int(count.min())
            table.append(
                [
                    title,
                    name,
                    int(count.min()),
                    f"{float(rates[best]):.2g}",
                    int((count <= config.steps).sum()),
                ]
            )
            start = np.asarray(problem.start)[None]
            track = np.concatenate([start, points[best]])
            panel.plot(*np.clip(track, *_reach(title)).T, label=name, linewidth=1.2)
    panels.flat[0].legend(frameon=False, fontsize=7)
    bowl = {}
    for name in RULES:
        _, values = paths(problems.quadratic(10, 100.0), RULES[name], rates, config.steps)
        bowl[name] = int(steps_until(np.asarray(values) < problems.quadratic(10, 100.0).value + 1e-3).min())
        table.append(["bowl", name, bowl[name], "", ""])
    final = {name: moons(rule, config) for name, rule in RULES.items()}
    for name, (loss, right) in final.items():
        mean = np.where(np.isfinite(loss), loss, np.inf).mean(1)
        best = int(np.argmin(mean))
        numbers[f"moons, {name}: accuracy at its best rate"] = float(right[best].mean())
        numbers[f"moons, {name}: deviation over seeds"] = float(right[best].std())
        numbers[f"moons, {name}: rates within 2 % of it"] = int(
            (right.mean(1) > right[best].mean() - 0.02).sum()
        )
    return Report(
        numbers=numbers
        | {f"long valley, {name}: steps to leave": count for name, count in leaves["long valley"].items()}
        | {f"bowl of condition 100, {name}: steps": count for name, count in bowl.items()},
        verdict=decide(leaves["long valley"], bowl),
        because=f"steps to leave the valley's wall: {_listed(leaves['long valley'])}; "
        f"steps in the bowl: {_listed(bowl)}; "
        "on the moons no winner is named",
        figures={"paths": figure, "rates_on_the_moons": _moons_figure(final, config)},
        tables={
            "races": Table(
                ["course", "rule", "steps", "best rate", f"rates of {config.rates} that arrive"], table
            )
        },
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _arrived(title: str, points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """At the minimum of Beale's function; away from the line of symmetry elsewhere."""
    if title == "Beale":
        return values < 1e-3
    return np.abs(points[..., 1]) > (5.0 if title == "long valley" else 0.5)


def _reach(title: str) -> tuple[float, float]:
    return {"Beale": (-4.5, 4.5), "long valley": (-12.0, 12.0), "saddle": (-2.0, 2.0)}[title]


def _contours(panel: Any, problem: Any, title: str) -> None:
    low, high = _reach(title)
    line = jnp.linspace(low, high, 120)
    grid = jnp.stack(jnp.meshgrid(line, line), -1)
    values = np.asarray(jax.vmap(jax.vmap(problem.fn))(grid))
    panel.contour(line, line, np.log1p(values - values.min()), levels=14, colors="0.7", linewidths=0.6)
    panel.set(title=title, xlabel="x", ylabel="y")
    panel.grid(False)


def _moons_figure(final: dict[str, tuple[np.ndarray, np.ndarray]], config: Config) -> Any:
    figure, panel = axes("learning rate", "accuracy on new moons")
    for name, (_, right) in final.items():
        panel.plot(np.geomspace(1e-3, 3, config.rates), right.mean(1), label=name)
    panel.set_xscale("log")
    panel.legend(frameon=False)
    return figure
