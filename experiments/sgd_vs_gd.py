"""Small batches: many updates an epoch, noise that leaves poor minima, and flatter places at the end.

Claims X21, X22 and X23. (1) With batches of a twentieth of the data an epoch is twenty updates and not one, and at
equal epochs the loss is lower, each at its own best rate. (2) On a double well, descent from the bottom of the
shallower well with a gradient that is a mean over B noisy examples leaves it the more often the smaller B is; whole
batches never do. (3) Keskar et al. 2017 say that small batches end in flatter minima, which generalise better.
Sharpness is the largest eigenvalue of the Hessian of the training loss, by power iteration of Hessian-vector
products, where the training loss first comes to a given value, so that all are equally well trained. Whether they also
read more test digits is reported; that they read fewer would speak against the claim.

Refuted if batches take more epochs than descent for the loss that descent ends with; if the share that escapes rises
with the batch beyond chance, or any whole batch does; if the sharpness with the smallest batch is not below that with
the largest by two standard errors, or its test accuracy is lower by as much.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, gradients, losses, models, optim
from purenets.data.batches import sample_batch

WHOLE = 1280


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    epochs: int = 20
    seeds: int = 8
    runs: int = 256
    """Of the double well, for each batch size."""
    steps: int = 2000
    """On the double well."""
    wells: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Batch sizes on the double well."""
    batches: tuple[int, ...] = (8, 32, 128, 512)
    """Batch sizes for sharpness."""
    rate: float = 0.1
    """For sharpness."""
    target: float = 0.1
    """Training loss at which sharpness is measured, in nats."""
    looks: int = 400
    """How often the training loss is looked at, every ten updates."""


def double_well(x: jax.Array) -> jax.Array:
    """Two wells: the shallower near 0.95, the deeper near -1.05, a hill of 0.16 above the former between them."""
    return x**4 / 4 - x**2 / 2 + 0.1 * x


def escapes(batch_size: int, config: Config, noise: float = 4.0, rate: float = 0.05) -> np.ndarray:
    """Whether each run from the shallower well was ever beyond the hill, ``[runs]``; 0 is the whole, without noise.

    One example's loss is the well's plus ``noise * z * x`` with its own normal z.
    """

    def run(key: Any) -> jax.Array:
        def step(x: jax.Array, i: jax.Array) -> Any:
            z = jax.random.normal(jax.random.fold_in(key, i), (max(1, batch_size),)) * (
                noise if batch_size else 0.0
            )
            x = x - rate * jax.grad(lambda x: double_well(x) + jnp.mean(z) * x)(x)
            return x, x

        walk = jax.lax.scan(step, jnp.float32(0.9), jnp.arange(config.steps))[1]
        return walk.min() < -0.5

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), config.runs)))


def top_curvature(fn: Any, params: Any, key: Any, iterations: int = 40) -> jax.Array:
    """The largest eigenvalue of the Hessian by magnitude: Rayleigh's quotient after so many power iterations."""
    flat, unflatten = ravel_pytree(params)
    product = lambda v: ravel_pytree(gradients.hessian_vector(fn, params, unflatten(v)))[0]
    scaled = lambda v: v / jnp.linalg.norm(v)
    first = scaled(jax.random.normal(key, flat.shape))
    last = jax.lax.fori_loop(0, iterations, lambda _, v: scaled(product(v)), first)
    return jnp.vdot(last, product(last))


def network() -> pn.Layer:
    """Reads digits of 8 by 8 pixels."""
    return pn.serial(flat=pn.flatten(), mlp=models.mlp((64, 32, 10)))


def by_epochs(batch_size: int, rates: np.ndarray, config: Config, train: Any) -> tuple[np.ndarray, int]:
    """The training loss after each epoch, ``[rates, seeds, epochs]``, and the number of updates made."""
    objective = pn.supervised(network(), losses.softmax_cross_entropy)

    def run(key: Any, rate: jax.Array) -> Any:
        step = pn.make_step(objective, optim.sgd(rate))

        def epoch(ts: pn.TrainState, _: None) -> Any:
            ts, _rows = pn.train(step, ts, train, epochs=1, batch_size=batch_size, ahead=0)
            return ts, objective(ts.params, ts.state, train, None, False)[0]

        ts, loss = jax.lax.scan(epoch, pn.start(network(), step.optimizer, key), None, length=config.epochs)
        return loss, ts.step

    loss, steps = pn.sweep(run, {"rate": rates}, seeds=min(4, config.seeds)).results
    found = np.where(np.isfinite(loss), loss, np.inf).reshape(len(rates), -1, config.epochs)
    return found, int(steps[0])


def sharpness(batch_size: int, config: Config, train: Any, test: Any) -> dict[str, np.ndarray]:
    """Where the training loss first is at most the target: curvature, test accuracy, loss and updates, ``[seeds]``."""
    objective = pn.supervised(network(), losses.softmax_cross_entropy)
    step = pn.make_step(objective, optim.sgd(config.rate))
    loss_of = lambda params: objective(params, {}, train, None, False)[0]

    def run(key: Any) -> dict[str, jax.Array]:
        weights, order, power = jax.random.split(key, 3)

        def look(carry: Any, i: jax.Array) -> Any:
            ts, there = carry

            def update(ts: pn.TrainState, j: jax.Array) -> Any:
                return step(ts, sample_batch(jax.random.fold_in(order, j), train, batch_size))[0], None

            after, _ = jax.lax.scan(update, ts, 10 * i + jnp.arange(10))
            ts = after._replace(
                params=jax.tree.map(lambda a, b: jnp.where(there, a, b), ts.params, after.params)
            )
            return (ts, there | (loss_of(ts.params) <= config.target)), there

        begin = (pn.start(network(), step.optimizer, weights), jnp.bool_(False))
        (ts, _), there = jax.lax.scan(look, begin, jnp.arange(config.looks))
        logits = network().apply(ts.params, {}, test[0])[0]
        return {
            "curvature": top_curvature(loss_of, ts.params, power),
            "test accuracy": jnp.mean(jnp.argmax(logits, -1) == test[1]),
            "training loss": loss_of(ts.params),
            "updates": 10 * jnp.sum(~there),
        }

    return {name: np.asarray(x) for name, x in pn.sweep(run, seeds=config.seeds).results.items()}


def error_of(values: np.ndarray) -> float:
    """The standard error of the mean."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def decide(
    sooner: tuple[int, int],
    escaped: list[float],
    whole: float,
    curvature: tuple[np.ndarray, np.ndarray],
    right: tuple[np.ndarray, np.ndarray],
    runs: int,
) -> Verdict:
    """By epochs, shares that escape by batch size, and, with the smallest and the largest batch, two measures."""
    chance = 2 * np.sqrt(0.5 / runs)
    falls = all(b <= a + chance for a, b in itertools.pairwise(escaped)) and whole == 0
    pair = lambda found: (found[0].mean() - found[1].mean(), np.hypot(error_of(found[0]), error_of(found[1])))
    (sharper, its_error), (better, error) = pair(curvature), pair(right)
    flatter = sharper < -2 * its_error and better > -2 * error
    return verdict(sooner[0] < sooner[1] and falls and escaped[0] > escaped[-1] and bool(flatter))


def run(config: Config) -> Report:
    """Updates, wells, sharpness."""
    train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    train = jax.tree.map(lambda leaf: leaf[:WHOLE], train)
    rates = np.geomspace(0.03, 3, 7)
    small, updates_small = by_epochs(WHOLE // 20, rates, config, train)
    full, updates_full = by_epochs(WHOLE, rates, config, train)
    best = [int(np.argmin(each[..., -1].mean(1))) for each in (small, full)]
    lines = {
        "20 updates an epoch": small[best[0]].mean(0),
        "1 update an epoch": full[best[1]].mean(0),
    }
    level = lines["1 update an epoch"][-1]
    reached = np.flatnonzero(lines["20 updates an epoch"] <= level)
    sooner = (int(reached[0]) + 1 if reached.size else config.epochs + 1, config.epochs)

    escaped = [float(escapes(size, config).mean()) for size in config.wells]
    whole = float(escapes(0, config).mean())

    ends = [sharpness(size, config, train, test) for size in config.batches]
    curvature, right = ((ends[0][name], ends[-1][name]) for name in ("curvature", "test accuracy"))
    wells, panel = axes("batch size", "share that leaves the shallower well")
    panel.plot(config.wells, escaped, marker="o")
    panel.set_xscale("log")
    flat, panels = axes("batch size", "", columns=2, width=8.5)
    for panel, name in zip(panels.flat, ("curvature", "test accuracy"), strict=True):
        means = [each[name].mean() for each in ends]
        panel.errorbar(config.batches, means, [error_of(each[name]) for each in ends], capsize=2, marker="o")
        panel.set_xscale("log")
        panel.set_ylabel(
            "largest eigenvalue of the Hessian" if name == "curvature" else "share of test digits right"
        )
    return Report(
        numbers={
            "updates over updates": updates_small / updates_full,
            "loss at the end, 1 update an epoch": float(level),
            "loss at the end, 20 updates an epoch": float(lines["20 updates an epoch"][-1]),
            "epochs to the former with 20 updates": sooner[0],
            "share that escapes by batch size": escaped,
            "share that escapes without noise": whole,
            "batch sizes of the sharpness": list(config.batches),
        }
        | {f"{name}: mean by batch size": [float(each[name].mean()) for each in ends] for name in ends[0]}
        | {
            f"{name}: standard error": [error_of(each[name]) for each in ends]
            for name in ("curvature", "test accuracy")
        },
        verdict=decide(sooner, escaped, whole, curvature, right, config.runs),
        because=f"{updates_small // updates_full} updates an epoch reach in {sooner[0]} epochs what one reaches in "
        f"{config.epochs}; from the shallow well {escaped[0]:.0%} escape with batches of {config.wells[0]} and "
        f"{escaped[-1]:.0%} with {config.wells[-1]}; at a loss of {config.target} the largest curvature is "
        f"{curvature[0].mean():.3g} with batches of {config.batches[0]} and {curvature[1].mean():.3g} with "
        f"{config.batches[-1]}, test accuracy {right[0].mean():.2%} and {right[1].mean():.2%}",
        figures={
            "loss_by_epoch": curves(lines, x="epoch", y="training loss (nats)", log="y"),
            "escape_from_a_well": wells,
            "sharpness_by_batch_size": flat,
        },
        tables={
            "at equal training loss": Table(
                ["batch size", *ends[0]],
                [
                    [size, *(f"{each[name].mean():.4g}" for name in each)]
                    for size, each in zip(config.batches, ends, strict=True)
                ],
            )
        },
    )
