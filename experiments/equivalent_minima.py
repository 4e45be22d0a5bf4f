"""Trainings from different weights end far apart and equally good; renaming the hidden units explains a part of it.

Claim X66. Exchanging two hidden units changes the weights and not the function, so every minimum is there many times
over (Hecht-Nielsen 1990). Networks of one hidden layer on handwritten digits, one for each seed. For each pair: the
distance of their weights, over their mean length, as they are and with the units of one matched to those of the other
(the Hungarian method; units are alike by their weights in and out), and the loss halfway between them.

Refuted if the training losses differ by more than a tenth of a nat, two trainings end nearer than half their length; if
matching does not bring every pair nearer; or if a network and its own shuffled copy are not found to be one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

import purenets as pn
from experiments.classifiers import learning, standardised
from experiments.figures import axes, pictures
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    units: int = 32
    epochs: int = 40
    seeds: int = 6


def rows(params: Any) -> np.ndarray:
    """One row for each hidden unit: its weights in, its bias and its weights out, ``[units, n]``."""
    first, last = (params["mlp"][f"dense_{i}"] for i in (1, 2))
    parts = (np.asarray(first["kernel"]).T, np.asarray(first["bias"])[:, None], np.asarray(last["kernel"]))
    return np.concatenate(parts, 1, dtype=np.float64)


def matched(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The order of the second's units in which they are most like the first's, by inner products."""
    return np.asarray(linear_sum_assignment(first @ second.T, maximize=True)[1])


def reordered(params: Any, order: np.ndarray) -> Any:
    """The same function with its hidden units in another order."""
    first, last = (params["mlp"][f"dense_{i}"] for i in (1, 2))
    return {
        **params,
        "mlp": {
            "dense_1": {"kernel": first["kernel"][:, order], "bias": first["bias"][order]},
            "dense_2": {"kernel": last["kernel"][order], "bias": last["bias"]},
        },
    }


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Between two sets of weights, over the mean of their lengths."""
    return float(2 * np.linalg.norm(first - second) / (np.linalg.norm(first) + np.linalg.norm(second)))


def decide(loss: np.ndarray, apart: np.ndarray, after: np.ndarray, copy: float) -> Verdict:
    """By the losses of the seeds, the distances of pairs before and after matching, and that of a shuffled copy."""
    equal = np.ptp(loss) <= 0.1 and apart.min() >= 0.5
    return verdict(bool(equal and np.all(after < apart) and copy < 1e-6))


def run(config: Config) -> Report:
    """Train all seeds and compare every pair."""
    train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, config.units, 10)))
    found = learning(
        model, optim.adam(2e-3), train, test, epochs=config.epochs, seeds=config.seeds, together=True
    )
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], found.params) for i in range(config.seeds)]
    objective = pn.supervised(model, losses.softmax_cross_entropy)
    loss_of = jax.jit(lambda params: objective(params, {}, train, None, False)[0])
    halfway = lambda a, b: float(loss_of(jax.tree.map(lambda x, y: (x + y) / 2, a, b)))

    lines = []
    for a, b in itertools.combinations(range(config.seeds), 2):
        order = matched(rows(each[a]), rows(each[b]))
        renamed = reordered(each[b], order)
        lines.append(
            (
                distance(rows(each[a]), rows(each[b])),
                distance(rows(each[a]), rows(renamed)),
                halfway(each[a], each[b]),
                halfway(each[a], renamed),
            )
        )
    apart, after, middle, middle_after = np.array(lines).T
    shuffled = reordered(each[0], np.asarray(jax.random.permutation(jax.random.key(1), config.units)))
    back = reordered(shuffled, matched(rows(each[0]), rows(shuffled)))
    copy = distance(rows(each[0]), rows(back))
    loss = np.array([float(loss_of(params)) for params in each])
    same_loss = abs(float(loss_of(shuffled)) - loss[0])

    figure, panels = axes("", "", columns=2, width=9)
    for panel, (x, y), name in zip(
        panels.flat,
        ((apart, after), (middle, middle_after)),
        ("distance", "loss halfway (nats)"),
        strict=True,
    ):
        panel.scatter(x, y, s=18, color="black")
        reach = [min(x.min(), y.min()), max(x.max(), y.max())]
        panel.plot(reach, reach, color="0.6", linewidth=1)
        panel.set(xlabel=f"{name}, as they are", ylabel=f"{name}, units matched")
    shown = min(8, config.units)
    second = reordered(each[1], matched(rows(each[0]), rows(each[1])))
    kernels = [
        np.asarray(p["mlp"]["dense_1"]["kernel"]).T.reshape(-1, 8, 8)[:shown] for p in (each[0], second)
    ]
    return Report(
        numbers={
            "training loss: least and most": [float(loss.min()), float(loss.max())],
            "test digits right: mean, deviation": list(found.last("test_accuracy")),
            "distance of two: mean": float(apart.mean()),
            "distance of two: deviation": float(apart.std(ddof=1)) if len(apart) > 1 else float("nan"),
            "distance with units matched: mean": float(after.mean()),
            "loss halfway: mean": float(middle.mean()),
            "loss halfway with units matched: mean": float(middle_after.mean()),
            "distance of a shuffled copy": distance(rows(each[0]), rows(shuffled)),
            "distance of a shuffled copy with units matched": copy,
            "loss of a shuffled copy, difference": same_loss,
        },
        verdict=decide(loss, apart, after, copy),
        because=f"{config.seeds} trainings have losses from {loss.min():.1e} to {loss.max():.1e}, {apart.mean():.2f} "
        f"of their length apart and {after.mean():.2f} matched; a shuffled copy comes to {copy:.0e}",
        figures={
            "pairs_as_they_are_and_matched": figure,
            "matched_units_of_two_trainings": pictures(
                np.concatenate(kernels), [*["first"] * shown, *["second"] * shown], columns=shown
            ),
        },
        tables={
            "pairs": Table(
                ["distance", "matched", "loss halfway", "matched"],
                [[f"{x:.3g}" for x in line] for line in lines],
            )
        },
    )
