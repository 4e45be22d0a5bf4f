"""Hidden units that begin alike stay alike: a constant draw leaves one unit's worth of network, chance breaks it.

Claim X01. A network of one hidden layer on handwritten digits, its weights begun at zero, at a constant, at that
constant with a little chance on top, and drawn at random. Units with the same weights in and out get the same
gradient, so nothing in training can tell them apart (Goodfellow, Bengio & Courville 2016, section 8.4).

Refuted if, from a constant, the hidden weights have a rank over 1 after training or two units differ by more than
rounding; if from random ones the rank is not full or the units are nearly alike; or if the symmetric network
fits the training digits as well as the random one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import curves, pictures
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, initializers, losses, metrics, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    units: int = 16
    epochs: int = 20
    seeds: int = 4
    learning_rate: float = 0.1
    constant: float = 0.05
    noise: float = 1e-3


def draws(config: Config) -> dict[str, Any]:
    """Initializers of all kernels, by name."""

    def almost_constant(key: Any, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return config.constant + config.noise * jax.random.normal(key, shape, dtype)

    return {
        "zero": initializers.zeros,
        "constant": initializers.constant(config.constant),
        "constant and a little chance": almost_constant,
        "random": initializers.glorot_normal(),
    }


def similarity(kernel: jax.Array) -> jax.Array:
    """The mean cosine of the angles between the columns of different units; 1 where all are zero."""
    norm = jnp.linalg.norm(kernel, axis=0)
    unit = jnp.where(norm > 0, kernel / jnp.where(norm > 0, norm, 1), 1 / np.sqrt(len(kernel)))
    count = kernel.shape[1]
    return (jnp.sum(unit.T @ unit) - count) / (count * (count - 1))


def rank(kernel: np.ndarray) -> int:
    """Singular values above a ten-thousandth of the largest; 0 for a matrix of zeros."""
    values = np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)
    return int(np.sum(values > 1e-4 * values[0])) if values[0] > 0 else 0


def apart(kernel: np.ndarray) -> float:
    """How far two units' weights are apart at most, over the largest weight."""
    spread = (kernel.max(1) - kernel.min(1)).max()
    return float(spread / max(np.abs(kernel).max(), 1e-30))


def trained(config: Config, init: Any, train: Any) -> Any:
    """For each seed: accuracy and similarity in each epoch, and the hidden kernel at the end."""
    model = pn.serial(
        flat=pn.flatten(),
        hidden=pn.dense(64, config.units, kernel_init=init),
        tanh=jnp.tanh,
        head=pn.dense(config.units, 10, kernel_init=init),
    )
    objective = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})
    step = pn.make_step(objective, optim.sgd(config.learning_rate))

    def run(key: Any) -> Any:
        def epoch(ts: pn.TrainState, _: None) -> Any:
            ts, rows = pn.train(step, ts, train, epochs=1, batch_size=64, ahead=0)
            return ts, (rows["accuracy"].mean(), similarity(ts.params["hidden"]["kernel"]))

        ts, (right, alike) = jax.lax.scan(
            epoch, pn.start(model, step.optimizer, key), None, length=config.epochs
        )
        return right, alike, ts.params["hidden"]["kernel"]

    return jax.tree.map(np.asarray, pn.sweep(run, seeds=config.seeds).results)


def decide(
    ranks: dict[str, list[int]], distance: dict[str, float], right: dict[str, float], units: int
) -> Verdict:
    """By the ranks over seeds, the largest distance of two units, and the shares of training digits right."""
    alike = ("zero", "constant")
    same = all(max(ranks[name]) <= 1 and distance[name] < 1e-3 for name in alike)
    broken = min(ranks["random"]) == units and distance["random"] > 0.1
    return verdict(same and broken and all(right["random"] > right[name] + 0.05 for name in alike))


def run(config: Config) -> Report:
    """Train from all four beginnings."""
    train, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    found = {name: trained(config, init, train) for name, init in draws(config).items()}
    ranks = {name: [rank(kernel) for kernel in each[2]] for name, each in found.items()}
    distance = {name: max(apart(kernel) for kernel in each[2]) for name, each in found.items()}
    right = {name: float(each[0][:, -1].mean()) for name, each in found.items()}
    alike = {name: each[1].mean(0) for name, each in found.items()}
    shown = [name for name in ("constant", "random") for _ in range(min(8, config.units))]
    units = [found[name][2][0][:, i % min(8, config.units)].reshape(8, 8) for i, name in enumerate(shown)]
    return Report(
        numbers={f"rank of the hidden weights, {name}": value for name, value in ranks.items()}
        | {f"units apart at most, {name}": value for name, value in distance.items()}
        | {f"similarity of units, {name}": float(line[-1]) for name, line in alike.items()}
        | {f"training digits right, {name}": value for name, value in right.items()},
        verdict=decide(ranks, distance, right, config.units),
        because=f"of {config.units} units the rank is {max(ranks['constant'])} after a constant and "
        f"{min(ranks['random'])} after chance; {right['constant']:.1%} of the training digits are right after a "
        f"constant, {right['zero']:.1%} after zeros, {right['random']:.1%} after chance and "
        f"{right['constant and a little chance']:.1%} after a constant with a little of it",
        figures={
            "similarity_of_the_hidden_units": curves(alike, x="epoch", y="mean cosine between units"),
            "training": curves(
                {name: each[0].mean(0) for name, each in found.items()},
                x="epoch",
                y="share of training digits right",
            ),
            "weights_of_the_first_units": pictures(np.stack(units), shown),
        },
        tables={
            "after training": Table(
                ["beginning", "rank, by seed", "units apart at most", "training digits right"],
                [
                    [name, ", ".join(map(str, ranks[name])), f"{distance[name]:.1e}", f"{right[name]:.3f}"]
                    for name in found
                ],
            )
        },
    )
