"""The larger a component of the negative gradient, the more a nudge of that weight changes the cost.

Claim X61. A small network on handwritten digits, untrained and part-way trained. Each of some hundred weights, spread
over all sizes of components, is nudged alone by the same small amount against its slope, and the change of the cost
over all digits is measured, in float64. To first order it is the component times the nudge.

Refuted if the rank correlation of component and change is under 0.98 anywhere, or the larger change over the smaller of
two weights whose components are as 32 to 1 is not near 32 (within a tenth).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.stats import spearmanr

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    epochs: tuple[int, ...] = (0, 1, 5)
    """Of training before the measurement."""
    weights: int = 200
    nudge: float = 1e-3
    ratio: float = 32.0
    seeds: int = 4


MODEL = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, 16, 16, 10), activation=jnp.tanh))


def chosen(components: np.ndarray, count: int) -> np.ndarray:
    """Weights from the least to the largest of the components that are not zero, evenly by rank; the largest last."""
    order = np.argsort(np.abs(components))
    order = order[np.abs(components[order]) > 0]
    return order[np.linspace(0, len(order) - 1, count).astype(int)]


def changes(params: Any, sets: Any, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The size of the components of the chosen weights, and how far a nudge of each lowers the cost; in float64."""
    with jax.enable_x64(True):
        x, y = np.asarray(sets[0], np.float64), np.asarray(sets[1])
        flat, unflatten = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params))

        def cost(flat: jax.Array) -> jax.Array:
            return jnp.mean(losses.softmax_cross_entropy(MODEL.apply(unflatten(flat), {}, x)[0], y))

        components = np.asarray(jax.jit(jax.grad(cost))(flat))
        index = chosen(components, config.weights)
        by = -config.nudge * np.sign(components[index])
        nudged = jax.jit(lambda where, by: jax.lax.map(lambda w: cost(flat.at[w[0]].add(w[1])), (where, by)))
        saved = np.asarray(cost(flat) - nudged(index, by))
    return np.abs(components[index]), saved


def times(components: np.ndarray, change: np.ndarray, ratio: float) -> float:
    """How many times the change of the largest component is that of the one nearest to ``ratio`` times less."""
    other = int(np.argmin(np.abs(np.log(components[-1] / components / ratio))))
    return float(change[-1] / change[other] * ratio * components[other] / components[-1])


def decide(ranks: list[float], measured: list[float], ratio: float) -> Verdict:
    """By the rank correlations and how many times as strong the larger component is."""
    return verdict(min(ranks) >= 0.98 and abs(float(np.median(measured)) / ratio - 1) <= 0.1)


def run(config: Config) -> Report:
    """Nudge after each of the trainings, for each seed."""
    sets, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    step = pn.make_step(pn.supervised(MODEL, losses.softmax_cross_entropy), optim.sgd(0.1))
    ranks: dict[int, list[float]] = {}
    measured, points = [], {}
    for epochs in config.epochs:
        for seed in range(config.seeds):
            ts = pn.start(MODEL, step.optimizer, jax.random.key(seed))
            ts, _ = jax.jit(lambda ts, n=epochs: pn.train(step, ts, sets, epochs=n, batch_size=64))(ts)
            components, change = changes(ts.params, sets, config)
            ranks.setdefault(epochs, []).append(float(spearmanr(components, change).statistic))
            measured.append(times(components, change, config.ratio))
            points[epochs] = components, change
    figure, panel = axes(
        "size of the gradient's component", f"cost saved by a nudge of {config.nudge:g} (nats)"
    )
    for (epochs, (components, change)), marker in zip(points.items(), "os^dv", strict=False):
        panel.scatter(
            components, np.maximum(change, 1e-9), s=8, marker=marker, label=f"after {epochs} epochs"
        )
    line = np.geomspace(1e-5, max(c.max() for c, _ in points.values()), 20)
    panel.plot(line, config.nudge * line, color="0.5", linewidth=1, label="first order")
    panel.set(xscale="log", yscale="log", xlim=(1e-5, None), ylim=(1e-8, None))
    panel.legend(frameon=False)
    all_ranks = [rank for of in ranks.values() for rank in of]
    return Report(
        numbers={f"rank correlation after {epochs} epochs: least": min(of) for epochs, of in ranks.items()}
        | {
            f"strength of a component {config.ratio:g} times as large: median": float(np.median(measured)),
            "its least and most": [min(measured), max(measured)],
        },
        verdict=decide(all_ranks, measured, config.ratio),
        because=f"the rank correlation is {min(all_ranks):.4f} at least; a component {config.ratio:g} times as large "
        f"saves {np.median(measured):.1f} times as much in the median",
        figures={"change_of_cost_by_component": figure},
        tables={
            "rank correlation by seed": Table(
                ["epochs trained", "rank correlation"],
                [[epochs, ", ".join(f"{rank:.4f}" for rank in of)] for epochs, of in ranks.items()],
            )
        },
    )
