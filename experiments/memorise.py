"""A network that is wide enough learns any labels by heart: it fits random ones perfectly, and reads nothing by them.

Claim X63 (Zhang, Bengio, Hardt, Recht & Vinyals 2017). One hidden layer, on handwritten digits with their own
labels and with labels drawn at random, from few units to many, and on pictures of noise with random labels.

Refuted if the widest network gets less than 99 % of the random labels right, the narrowest as many, the share
right falls anywhere with the width beyond two deviations, or random labels help to read new digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import purenets as pn
from experiments.classifiers import learning, standardised
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, models, optim
from purenets.theory import count_parameters


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 256
    widths: tuple[int, ...] = (2, 8, 32, 128, 512)
    epochs: int = 200
    seeds: int = 3
    learning_rate: float = 5e-3


def tasks(config: Config) -> dict[str, tuple[Any, Any]]:
    """Training and test pictures by name; the test digits always have their own labels."""
    train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    x, y = (leaf[: config.examples] for leaf in train)
    labels, noise = jax.random.split(jax.random.key(7))
    random = jax.random.randint(labels, y.shape, 0, 10, y.dtype)
    return {
        "true labels": ((x, y), test),
        "random labels": ((x, random), test),
        "noise, random labels": ((jax.random.normal(noise, x.shape), random), test),
    }


def decide(right: np.ndarray, deviation: np.ndarray, read: float) -> Verdict:
    """By the shares of random labels right by width and their deviations, and of test digits with the widest."""
    rises = bool(np.all(np.diff(right) >= -2 * np.maximum(deviation[1:], deviation[:-1]) - 0.01))
    return verdict(rises and right[-1] >= 0.99 > right[0] + 0.1 and read < 0.2)


def run(config: Config) -> Report:
    """Train all widths on all tasks."""
    found: dict[str, list[Any]] = {}
    for name, (train, test) in tasks(config).items():
        found[name] = [
            learning(
                pn.serial(flat=pn.flatten(), mlp=models.mlp((64, width, 10))),
                optim.adam(
                    optim.cosine_decay_schedule(config.learning_rate, config.epochs * (len(train[1]) // 64))
                ),
                train,
                test,
                epochs=config.epochs,
                seeds=config.seeds,
                together=True,
            )
            for width in config.widths
        ]
    right = {name: np.array([each.last("accuracy") for each in of]) for name, of in found.items()}
    read = {name: np.array([each.last("test_accuracy")[0] for each in of]) for name, of in found.items()}
    figure, panel = axes("hidden units", "share of training labels right")
    for name, of in right.items():
        panel.errorbar(config.widths, of[:, 0], of[:, 1], label=name, capsize=2)
    panel.set_xscale("log")
    panel.set_ylim(0, 1.02)
    panel.legend(frameon=False)
    sizes = [count_parameters((64, width, 10)) for width in config.widths]
    learnt = [
        width
        for width, share in zip(config.widths, right["random labels"][:, 0], strict=True)
        if share >= 0.99
    ]
    return Report(
        numbers={f"training labels right by width, {name}": of[:, 0].tolist() for name, of in right.items()}
        | {f"its deviation, {name}": of[:, 1].tolist() for name, of in right.items()}
        | {f"test digits right by width, {name}": of.tolist() for name, of in read.items()}
        | {
            "widths": list(config.widths),
            "parameters": sizes,
            "least width that knows 99 % of the random labels": learnt[0] if learnt else "none",
        },
        verdict=decide(
            right["random labels"][:, 0], right["random labels"][:, 1], float(read["random labels"][-1])
        ),
        because=f"of {config.examples} random labels {right['random labels'][0, 0]:.1%} are right with "
        f"{config.widths[0]} units and {right['random labels'][-1, 0]:.1%} with {config.widths[-1]}; "
        f"{read['random labels'][-1]:.1%} of new digits then are, {read['true labels'][-1]:.1%} after true labels",
        figures={"memory_by_width": figure},
        tables={
            "share of training labels right": Table(
                ["units", "parameters", *right],
                [
                    [width, size, *(f"{of[i, 0]:.3f}" for of in right.values())]
                    for i, (width, size) in enumerate(zip(config.widths, sizes, strict=True))
                ],
            )
        },
    )
