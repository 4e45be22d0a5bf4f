"""One hidden layer comes as near to a continuous function as wanted, and needs a power of the dimension for it.

Claims X44 and X45 (Cybenko 1989; Hornik, Stinchcombe & White 1989). On a line, the worst error against the number of
hidden units, for several random curves: threshold units and sigmoids in a staircase and ReLUs through points of the
curve, all written down, and ReLUs that are trained, since the theorem says nothing about finding weights. In d
dimensions, the number of cells of a table, one unit each, that are needed for an error eps of the function
``max(x_1, ..., x_d)``, which changes as fast as a function of slope 1 may: ``(1 / side)^d`` cells, of side
``2 eps`` when the value is that of the middle.

Refuted if an error of a construction does not fall steadily, or not as 1/n for steps and sigmoids and as 1/n^2 for
ReLUs (exponents within 0.25), or if the number of cells is not that power.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import losses, models, optim, theory
from purenets.classic.threshold import threshold_layer

RATES = {"step": -1.0, "sigmoid": -1.0, "ReLU": -2.0}

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    units: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    curves: int = 5
    trained_units: tuple[int, ...] = (8, 32, 128)
    steps: int = 3000
    """Of training."""
    dimensions: tuple[int, ...] = (1, 2, 3, 4)
    errors: tuple[float, ...] = (0.25, 0.125, 0.0625)
    points: int = 4000


def wave(seed: int) -> Curve:
    """A random sum of four sines."""
    draw = np.random.default_rng(seed)
    heights, phases = draw.normal(size=4) / np.arange(1, 5), draw.uniform(0, 2 * np.pi, 4)
    return lambda x: sum(
        h * np.sin(2 * np.pi * k * x + p) for k, (h, p) in enumerate(zip(heights, phases, strict=True), 1)
    )


def steps(curve: Curve, units: int) -> pn.Layer:
    """A staircase of threshold units."""
    edges = np.linspace(0, 1, units + 2)
    values = curve((edges[:-1] + edges[1:]) / 2)
    hidden = threshold_layer(np.ones((1, units)), edges[1:-1])
    return pn.serial(hidden=hidden, out=theory.given_dense(np.diff(values)[:, None], values[:1]))


def sigmoids(curve: Curve, units: int) -> pn.Layer:
    """A staircase of sigmoids that pass into each other."""
    return theory.staircase(curve, 0, 1, units + 1, gain=4.0 * (units + 1))


def ramps(curve: Curve, units: int) -> pn.Layer:
    """Straight pieces through points of the curve."""
    places = np.linspace(0, 1, units)
    return theory.piecewise_linear(places.tolist(), curve(places).tolist())


BUILDERS = {"step": steps, "sigmoid": sigmoids, "ReLU": ramps}


def worst(model: pn.Layer, goal: np.ndarray, x: np.ndarray) -> float:
    """The largest error at points ``[n, features]``."""
    params, _ = model.init(jax.random.key(0))
    return float(np.abs(np.asarray(model.apply(params, {}, jnp.asarray(x))[0])[:, 0] - goal).max())


def trained(units: int, config: Config) -> np.ndarray:
    """The worst error of ReLUs trained by Adam on each curve, ``[curves]``."""
    x = np.linspace(0, 1, 512, dtype=np.float32)[:, None]
    model = models.mlp((1, units, 1))
    optimizer = optim.adam(optim.cosine_decay_schedule(0.01, config.steps))
    step = pn.make_step(pn.supervised(model, lambda out, y: losses.squared_error(out[:, 0], y)), optimizer)

    def one(key: jax.Array, y: jax.Array) -> jax.Array:
        weights, places = jax.random.split(key)
        ts = pn.start(model, optimizer, weights)
        first = ts.params["dense_1"]
        # As drawn all ReLUs bend at 0, the end of the line; here each bends somewhere on it.
        first["bias"] = -first["kernel"][0] * jax.random.uniform(places, (units,))
        ts, _ = jax.lax.scan(lambda ts, _: (step(ts, (x, y))[0], None), ts, None, length=config.steps)
        return jnp.abs(model.apply(ts.params, ts.state, x)[0][:, 0] - y).max()

    goals = jnp.array([wave(seed)(x[:, 0]) for seed in range(config.curves)], jnp.float32)
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), config.curves), goals))


def table(d: int, side: int) -> pn.Layer:
    """The maximum of d numbers in [0, 1], as the middle of a cell has it: ``side^d`` cells, a threshold unit each.

    A first layer says which edges each number has passed, a unit of the second whether all numbers are in its cell.
    """
    edges = np.arange(1, side) / side
    passed = threshold_layer(np.kron(np.eye(d), np.ones((1, side - 1))), np.tile(edges, d))
    cells = np.array(list(itertools.product(range(side), repeat=d)))
    weights, thresholds = np.zeros((d * (side - 1), len(cells))), np.zeros(len(cells))
    for axis in range(d):
        for cell, place in enumerate(cells[:, axis]):
            # Passed the edge below it and not the one above; the outermost have one of them alone.
            if place > 0:
                weights[axis * (side - 1) + place - 1, cell] += 1
                thresholds[cell] += 1
            if place < side - 1:
                weights[axis * (side - 1) + place, cell] -= 1
    middles = (cells.max(1) + 0.5) / side
    out = theory.given_dense(middles[:, None].astype(np.float32), np.zeros(1, np.float32))
    return pn.serial(passed=passed, cell=threshold_layer(weights, thresholds), out=out)


def cells_needed(d: int, eps: float, points: int) -> int:
    """The fewest cells whose table is nowhere farther than eps from the maximum."""
    x = np.random.default_rng(0).uniform(0, 1, (points, d))
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=d)))
    x = np.concatenate([corners, x]).astype(np.float32)
    for side in itertools.count(1):
        if worst(table(d, side), x.max(1), x) <= eps * (1 + 1e-5):
            return side**d
    raise AssertionError


def decide(
    exponents: dict[str, float], falling: bool, cells: dict[float, list[int]], dimensions: tuple[int, ...]
) -> Verdict:
    """By the exponents of the errors, and by how the cells grow with the dimension."""
    rates = all(abs(exponents[name] - rate) <= 0.25 for name, rate in RATES.items())
    powers = all(
        count == theory.partitions(2 * eps, d)
        for eps, counts in cells.items()
        for d, count in zip(dimensions, counts, strict=True)
    )
    return verdict(rates and falling and powers)


def run(config: Config) -> Report:
    """Write down, train, and count cells."""
    x = np.linspace(0, 1, config.points)[:, None]
    found: dict[str, np.ndarray] = {}
    with jax.enable_x64(True):
        for name, build in BUILDERS.items():
            curves = [wave(seed) for seed in range(config.curves)]
            found[name] = np.array(
                [[worst(build(c, n), c(x[:, 0]), x) for c in curves] for n in config.units]
            )
    middle = {name: np.median(errors, 1) for name, errors in found.items()}
    exponents = {
        name: float(np.polyfit(np.log(config.units), np.log(errors), 1)[0]) for name, errors in middle.items()
    }
    falling = all(bool(np.all(np.diff(errors, axis=0) < 0)) for errors in found.values())
    by_training = np.array([np.median(trained(n, config)) for n in config.trained_units])
    cells = {eps: [cells_needed(d, eps, config.points) for d in config.dimensions] for eps in config.errors}
    figure, panel = axes("hidden units", "worst error (median of the curves)")
    for name, errors in middle.items():
        panel.loglog(config.units, errors, label=f"{name}, exponent {exponents[name]:.2f}")
    panel.loglog(config.trained_units, by_training, "o:", label="ReLU, trained")
    panel.legend(frameon=False)
    growth, panel = axes("dimensions", "cells needed")
    for eps, counts in cells.items():
        panel.semilogy(config.dimensions, counts, marker="o", label=f"error {eps:g}")
    panel.legend(frameon=False)
    rows: list[list[Any]] = [[name, *map(float, errors)] for name, errors in middle.items()]
    return Report(
        numbers={
            **{f"exponent of the error, {name}": value for name, value in exponents.items()},
            f"error of {config.units[-1]} units": [float(errors[-1]) for errors in middle.values()],
            f"error of {config.trained_units[-1]} trained ReLUs": float(by_training[-1]),
            **{f"cells for an error of {eps:g}, by dimension": counts for eps, counts in cells.items()},
        },
        verdict=decide(exponents, falling, cells, config.dimensions),
        because="the worst error falls as the units to the power of "
        + ", ".join(f"{value:.2f} ({name})" for name, value in exponents.items())
        + f"; for an error of {config.errors[-1]:g} it takes {cells[config.errors[-1]]} cells in "
        f"{list(config.dimensions)} dimensions",
        figures={"error_by_units": figure, "cells_by_dimension": growth},
        tables={"Worst error by units": Table(["units", *map(str, config.units)], rows)},
    )
