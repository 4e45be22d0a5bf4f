"""Batch norm learns sooner, keeps the gradient from vanishing, and bears any step size where the model is linear.

Claims X09, X10 and X11 (Ioffe & Szegedy 2015; Cai, Li & Shen 2019, for the last two).

X09: a deep sigmoid network reads digits, with and without batch norm before each sigmoid, each at its best rate of a
grid. Compared are the steps to a training loss of 1, the gradient on the first layer over that on the last before
training, and the drift of a middle layer's inputs: how far the mean of a unit moves in an epoch, in deviations.
X10: least squares by gradient descent on the weights, on their own and under a batch norm over all of the data whose
scale has its own rate. X11: the largest step of the weights that leaves less than a thousandth of the loss, by the
number of weights, for a target of variance 1 and weights that start anywhere on the unit sphere. That matters: from
weights along the gradient, or for a target whose variance grows with the number of weights, the largest step was found
to stay or to fall, so the growth is a statement about this start and not about batch norm alone.

Refuted if batch norm does not need fewer steps; or its gradient ratio is not nearer to 1; or, on least squares,
one of its runs ends with a number that is not finite or above where it began, or all plain ones converge; or the
largest step does not grow with the number of weights. The drift is reported; that it explains why batch norm works
is disputed (Santurkar et al. 2018).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import axes, curves
from experiments.report import Report, Verdict, verdict
from purenets import data, losses, optim

REACHED = 1.0


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    hidden: int = 4
    units: int = 64
    epochs: int = 30
    seeds: int = 3
    rates: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    steps: int = 2000
    features: tuple[int, ...] = (5, 20, 100, 400)
    weight_rates: tuple[float, ...] = tuple(float(10.0**e) for e in np.arange(-2, 6.5, 0.5))


def network(config: Config, norm: bool) -> pn.Layer:
    """Pictures ``[batch, 8, 8, 1]`` through sigmoid layers to logits, each sigmoid's input tapped."""
    widths = [64] + [config.units] * config.hidden
    parts: dict[str, Any] = {"flat": pn.flatten()}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths), 1):
        before = pn.serial(dense=pn.dense(n_in, n_out), **({"norm": pn.batch_norm(n_out)} if norm else {}))
        parts |= {f"input_{i}": before, f"sigmoid_{i}": jax.nn.sigmoid}
    return pn.serial(**parts, head=pn.dense(config.units, 10))


def learnt(
    config: Config, norm: bool, train: Any, key: Any, rate: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss of each step; the drift of a middle layer's inputs by epoch; the first gradient over the last."""
    model = network(config, norm)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.sgd(rate))
    tapped = pn.edit(model, f"input_{(config.hidden + 1) // 2}", pn.tap)
    some = jax.tree.map(lambda leaf: leaf[:256], train)

    def inputs(ts: pn.TrainState) -> tuple[jax.Array, jax.Array]:
        _, state = tapped.apply(ts.params, ts.state, some[0], train=True)
        (values,) = pn.taps(state).values()
        return values.mean(0), values.std(0)

    def epoch(ts: pn.TrainState, _: None) -> Any:
        mean, deviation = inputs(ts)
        ts, rows = pn.train(step, ts, train, epochs=1, batch_size=64, ahead=0)
        return ts, (rows["loss"][0], jnp.mean(jnp.abs(inputs(ts)[0] - mean) / deviation))

    ts = pn.start(model, step.optimizer, key)
    slopes = jax.grad(lambda p: step.objective(p, ts.state, some, None, True)[0])(ts.params)
    norms = [jnp.linalg.norm(slopes[f"input_{i}"]["dense"]["kernel"]) for i in (1, config.hidden)]
    _, (loss, drift) = jax.lax.scan(epoch, ts, None, length=config.epochs)
    return loss.ravel(), drift, norms[0] / norms[1]


def least_squares(d: int, steps: int, norm: bool, key: Any, rate: Any) -> jax.Array:
    """What remains of the loss above its minimum after so many steps of gradient descent, as a share.

    The loss is the expectation over x of covariance H, a diagonal from 0.01 to 1, of the squared error of w x, or of
    scale w x / sqrt(w H w), the batch norm over all data, to a target u x of variance 1 (Cai et al., section 2). The
    weights start at a random point of the unit sphere, the scale at its best for them, and its rate is 1.
    """
    target, start = jax.random.split(key)
    h = jnp.logspace(-2, 0, d)
    u = jax.random.normal(target, (d,))
    u = u / jnp.sqrt(jnp.sum(h * u * u))
    w = jax.random.normal(start, (d,))
    w = w / jnp.linalg.norm(w)

    def loss(w: jax.Array, scale: jax.Array) -> jax.Array:
        error = (scale * w / jnp.sqrt(jnp.sum(h * w * w)) if norm else w) - u
        return jnp.sum(h * error * error) / 2

    def once(at: Any, _: None) -> Any:
        by_w, by_scale = jax.grad(loss, (0, 1))(*at)
        return (at[0] - rate * by_w, at[1] - by_scale), None

    first = (w, jnp.sum(h * w * u) / jnp.sqrt(jnp.sum(h * w * w)))
    last, _ = jax.lax.scan(once, first, None, length=steps)
    return loss(*last) / loss(*first)


def steps_until(loss: np.ndarray) -> np.ndarray:
    """The first step from which the mean over 20 steps is at most 1; the number of steps plus one if none is."""
    smooth = np.apply_along_axis(lambda line: np.convolve(line, np.ones(20) / 20, "valid"), -1, loss)
    reached = smooth <= REACHED
    return np.where(reached.any(-1), reached.argmax(-1) + 20, loss.shape[-1] + 1)


def decide(
    steps: dict[str, float],
    ratio: dict[str, float],
    remaining: dict[str, np.ndarray],
    largest: list[float],
    enough: bool = True,
) -> Verdict:
    """By steps, gradient ratios, what remains of the loss by rate, and the largest steps by number of weights."""
    sooner = steps["with"] < steps["without"]
    nearer = abs(np.log(ratio["with"])) < abs(np.log(ratio["without"]))
    bears = bool(np.all(remaining["with"] < 1)) and not np.all(remaining["without"] < 1)
    grows = largest[-1] > largest[0] and bool(np.all(np.diff(largest) >= 0))
    return verdict(sooner and nearer and bears and grows, enough=enough)


def run(config: Config) -> Report:
    """The three measurements."""
    train, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    names = {"with": True, "without": False}
    best, steps, ratio, drift = {}, {}, {}, {}
    for name, norm in names.items():
        found = pn.sweep(partial(learnt, config, norm, train), {"rate": config.rates}, seeds=config.seeds)
        loss, moved, ratios = (
            np.asarray(x).reshape(len(config.rates), config.seeds, -1) for x in found.results
        )
        needed = steps_until(loss).mean(1)
        at = int(needed.argmin())
        best[name], steps[name], drift[name] = config.rates[at], float(needed[at]), moved[at].mean(0)
        ratio[name] = float(np.exp(np.log(ratios).mean()))
        best[name + ", loss"] = loss[at].mean(0)
    rates = {"rate": config.weight_rates}
    remaining = {
        name: np.asarray(pn.sweep(partial(least_squares, 20, config.steps, norm), rates, seeds=8).results)
        .reshape(-1, 8)
        .max(1)
        for name, norm in names.items()
    }
    ended = [
        np.asarray(pn.sweep(partial(least_squares, d, config.steps, True), rates, seeds=8).results).reshape(
            -1, 8
        )
        for d in config.features
    ]
    largest = [
        max((r for r, e in zip(config.weight_rates, each, strict=True) if np.median(e) < 1e-3), default=0.0)
        for each in ended
    ]
    epochs = {
        f"{name} batch norm": np.convolve(best[name + ", loss"], np.ones(20) / 20, "valid") for name in names
    }
    figure, panel = axes("rate of the weights", "loss that remains, worst of eight")
    for name, line in remaining.items():
        panel.plot(
            config.weight_rates,
            np.where(np.isfinite(line), line, np.nan),
            marker=".",
            label=f"{name} batch norm",
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.legend(frameon=False)
    converged = [r for r, x in zip(config.weight_rates, remaining["without"], strict=True) if x < 1]
    return Report(
        numbers={
            "steps to a loss of 1 with batch norm": steps["with"],
            "steps to a loss of 1 without": steps["without"],
            "best rates with and without": [best["with"], best["without"]],
            "first gradient over last with batch norm": ratio["with"],
            "first gradient over last without": ratio["without"],
            "drift by epoch with batch norm, mean": float(drift["with"].mean()),
            "drift by epoch without, mean": float(drift["without"].mean()),
            "least squares, worst remaining with batch norm": float(remaining["with"].max()),
            "least squares, largest rate that converges without": max(converged, default=0.0),
            f"largest step by weights {list(config.features)}": largest,
        },
        verdict=decide(steps, ratio, remaining, largest, enough=config == Config()),
        because=f"a loss of 1 takes {steps['with']:.0f} steps with batch norm and {steps['without']:.0f} without, of "
        f"{len(best['with, loss'])}; the first gradient over the last is {ratio['with']:.2g} against "
        f"{ratio['without']:.1e}; on least squares all rates up to {max(config.weight_rates):.0e} lower the loss, and "
        f"without only those up to {max(converged, default=0.0):.2g}; the largest step goes from {largest[0]:.2g} for "
        f"{config.features[0]} weights to {largest[-1]:.2g} for {config.features[-1]}",
        figures={
            "training_loss": curves(epochs, x="step", y="cross entropy, mean of 20 steps"),
            "drift_of_a_middle_layer": curves(
                {f"{name} batch norm": line for name, line in drift.items()},
                x="epoch",
                y="shift of a unit's mean, in deviations",
            ),
            "least_squares_by_rate": figure,
            "largest_step": curves(
                {"largest step": largest}, x="weights", y="rate", at=config.features, log="xy"
            ),
        },
    )
