"""A sign has no slope to follow, so units that answer with one learn nothing; smooth ones do.

Claim X67. The same network of two hidden layers on handwritten digits with sign, sigmoid, tanh and ReLU between its
layers. The derivative of the sign is zero wherever there is one, so the gradient ends there: only the last layer,
behind the last sign, learns, on features that stay as drawn.

Refuted if a hidden weight of the sign network changes at all, one of a smooth network's layers does not, or the sign
network fits the training digits within a hundredth as well as the best smooth one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, metrics, models, optim

UNITS = {"sign": jnp.sign, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "ReLU": jax.nn.relu}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    hidden: tuple[int, ...] = (32, 32)
    epochs: int = 30
    learning_rate: float = 5e-3
    seeds: int = 6


def trained(activation: Any, config: Config, sets: Any) -> dict[str, np.ndarray]:
    """Training accuracy by epoch ``[seeds, epochs]``, that on test digits, and each kernel's relative change."""
    train, test = sets
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, *config.hidden, 10), activation=activation))
    objective = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})
    step = pn.make_step(objective, optim.adam(config.learning_rate))

    def run(begin: pn.TrainState) -> dict[str, jax.Array]:
        ts, rows = pn.train(step, begin, train, epochs=config.epochs, batch_size=64, ahead=0)
        kernels = lambda params: [params["mlp"][name]["kernel"] for name in sorted(params["mlp"])]
        pairs = zip(kernels(begin.params), kernels(ts.params), strict=True)
        return {
            "accuracy": rows["accuracy"].mean(-1),
            "test": objective(ts.params, {}, test, None, False)[1][1]["accuracy"],
            "change": jnp.stack([jnp.linalg.norm(b - a) / jnp.linalg.norm(a) for a, b in pairs]),
        }

    # Two programs: in one, the weights would be drawn twice, and the second time be rounded in another way.
    keys = jax.random.split(jax.random.key(0), config.seeds)
    begin = jax.jit(jax.vmap(lambda key: pn.start(model, step.optimizer, key)))(keys)
    return {name: np.asarray(x) for name, x in jax.jit(jax.vmap(run))(begin).items()}


def decide(change: dict[str, np.ndarray], right: dict[str, float]) -> Verdict:
    """By the change of each layer, the last one included, and the shares of training digits right."""
    smooth = [name for name in change if name != "sign"]
    stands = bool(np.all(change["sign"][:-1] == 0) and change["sign"][-1] > 0)
    moves = all(change[name].min() > 0.01 for name in smooth)
    return verdict(stands and moves and right["sign"] < max(right[name] for name in smooth) - 0.01)


def run(config: Config) -> Report:
    """All four kinds of units."""
    sets = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    found = {name: trained(unit, config, sets) for name, unit in UNITS.items()}
    change = {name: each["change"].max(0) for name, each in found.items()}
    right = {name: float(each["accuracy"][:, -1].mean()) for name, each in found.items()}
    test = {name: float(each["test"].mean()) for name, each in found.items()}
    spread = {name: float(each["test"].std()) for name, each in found.items()}
    return Report(
        numbers={f"change of each layer, {name}: most": line.tolist() for name, line in change.items()}
        | {f"training digits right, {name}": share for name, share in right.items()}
        | {
            f"test digits right, {name}: mean, deviation": [share, spread[name]]
            for name, share in test.items()
        },
        verdict=decide(change, right),
        because=f"the hidden weights of the sign network change by {change['sign'][:-1].max():g}, of the others by "
        f"{min(change[name].min() for name in change if name != 'sign'):.2g} of their length; training and test "
        "digits right: " + ", ".join(f"{name} {right[name]:.1%} and {test[name]:.1%}" for name in right),
        figures={
            "training": curves(
                {name: each["accuracy"].mean(0) for name, each in found.items()},
                x="epoch",
                y="share of training digits right",
            )
        },
        tables={
            "relative change of the kernels": Table(
                ["units", *(f"layer {i + 1}" for i in range(len(config.hidden) + 1)), "training", "test"],
                [
                    [name, *(f"{x:.3g}" for x in line), f"{right[name]:.3f}", f"{test[name]:.3f}"]
                    for name, line in change.items()
                ],
            )
        },
    )
