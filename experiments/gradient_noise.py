"""Noise on the gradient lets a deep network learn from weights that it could not begin with.

Claim X26 (Neelakantan et al. 2015, eq. 1 and section 4.1): normal noise of variance eta / t^0.55 on every gradient of
a deep ReLU network, on handwritten digits, begun at zeros, at a small draw and at He's. A run succeeds if it ends with
nine tenths of the training digits right. All clip the norm of the gradient first, with noise and without.

Refuted if from zeros, where every gradient but the last bias's is zero, a run without noise succeeds or fewer than
half of those with it do; or if noise costs successes from He's draw.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, initializers, losses, metrics, optim

DRAWS = {
    "zeros": initializers.zeros,
    "deviation 0.05": initializers.normal(0.05),
    "He": initializers.kaiming_normal(),
}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    hidden: tuple[int, ...] = (32, 32, 32, 32, 32)
    etas: tuple[float, ...] = (0.0, 0.01, 0.1, 0.3)
    epochs: int = 60
    learning_rate: float = 0.1
    seeds: int = 6


def final(init: Any, config: Config, train: Any) -> np.ndarray:
    """The share of training digits right in the last epoch, ``[etas, seeds]``."""
    sizes = (64, *config.hidden, 10)
    layers = [pn.dense(n_in, n_out, kernel_init=init) for n_in, n_out in itertools.pairwise(sizes)]
    between = [each for layer in layers for each in (jax.nn.relu, layer)]
    model = pn.serial(pn.flatten(), *between[1:])
    objective = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})

    def run(key: Any, eta: jax.Array) -> jax.Array:
        weights, noise = jax.random.split(key)
        optimizer = optim.chain(
            optim.clip_by_global_norm(1.0), optim.add_noise(eta, 0.55, noise), optim.sgd(config.learning_rate)
        )
        step = pn.make_step(objective, optimizer)
        ts = pn.start(model, optimizer, weights)
        rows = pn.train(step, ts, train, epochs=config.epochs, batch_size=64, ahead=0)[1]
        return rows["accuracy"][-1].mean()

    found = pn.sweep(run, {"eta": config.etas}, seeds=config.seeds)
    return np.asarray(found.results).reshape(len(config.etas), config.seeds)


def decide(success: dict[str, list[float]]) -> Verdict:
    """By the shares of runs that succeed, without noise first and then at each strength."""
    zeros, good = success["zeros"], success["He"]
    return verdict(zeros[0] == 0 and max(zeros[1:]) >= 0.5 and max(good[1:]) >= good[0])


def run(config: Config) -> Report:
    """All draws and strengths."""
    train, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    right = {name: final(init, config, train) for name, init in DRAWS.items()}
    success = {name: (each >= 0.9).mean(1).tolist() for name, each in right.items()}
    figure, panel = axes("variance eta of the first noise", "share of training digits right")
    for name, each in right.items():
        panel.errorbar(
            np.arange(len(config.etas)), each.mean(1), each.std(1), label=name, capsize=2, marker="o"
        )
    panel.set_xticks(range(len(config.etas)), [f"{eta:g}" for eta in config.etas])
    panel.legend(frameon=False)
    return Report(
        numbers={"etas": list(config.etas)}
        | {f"share of runs that succeed, {name}": of for name, of in success.items()}
        | {f"training digits right, {name}: mean": each.mean(1).tolist() for name, each in right.items()}
        | {f"training digits right, {name}: deviation": each.std(1).tolist() for name, each in right.items()},
        verdict=decide(success),
        because="share of runs that succeed without noise and at the best strength: "
        + ", ".join(f"{name} {of[0]:.0%} and {max(of[1:]):.0%}" for name, of in success.items()),
        figures={"success_by_noise": figure},
        tables={
            "share of runs that succeed": Table(
                ["weights begin at", *(f"eta {eta:g}" for eta in config.etas)],
                [[name, *(f"{share:.2f}" for share in of)] for name, of in success.items()],
            )
        },
    )
