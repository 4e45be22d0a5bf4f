"""Which shortcuts of a deep residual network can be trained: the identity, and what is put in its place.

Claim X13 (He et al. 2016b, table 1): ResNet-110 on CIFAR-10 errs on 6.61 % of the test pictures with identity
shortcuts, on 12.35 % where shortcut and body are both halved, on 8.70 % with an exclusive gate that starts almost
closed, on 12.86 % with a gate on the shortcut only, on 12.22 % with 1 x 1 convolutions and fails with dropout in the
shortcut, as with a halved shortcut beside a whole body.
``--scale full`` is that setting, for a GPU; by default a network of 38 layers reads the digits of scikit-learn, and
the training loss is compared, since what the paper explains is how well the network is optimised.

Refuted if any other shortcut reaches a lower error (full) or training loss (small) than the identity by more than
two standard errors of the difference. The order among the others is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from experiments.classifiers import learning, small_cifar, standardised
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, models, optim

JOINS = {
    "identity": models.sum_join,
    "both halved": models.scaled_join(0.5, 0.5),
    "shortcut halved": models.scaled_join(0.5, 1.0),
    "exclusive gate": models.gated_join(exclusive=True, bias=-6.0),
    "gated shortcut": models.gated_join(exclusive=False, bias=-6.0),
    "1 x 1 convolution": models.conv_join,
    "dropout": models.dropout_join(0.5),
}
PRINTED = {
    "identity": "6.61",
    "both halved": "12.35",
    "shortcut halved": "fails",
    "exclusive gate": "8.70",
    "gated shortcut": "12.86",
    "1 x 1 convolution": "12.22",
    "dropout": "fails",
}


@dataclass(frozen=True)
class Config:
    """Settings of the run; None takes what the scale has."""

    scale: Literal["small", "full"] = "small"
    depth: int | None = None
    width: int | None = None
    examples: int | None = None
    epochs: int | None = None
    seeds: int = 2
    shortcuts: tuple[str, ...] = tuple(JOINS)


@dataclass(frozen=True)
class _Scale:
    """What a scale stands for."""

    depth: int
    width: int
    examples: int
    epochs: int
    batch_size: int


SCALES = {
    "small": _Scale(depth=38, width=8, examples=1437, epochs=8, batch_size=64),
    "full": _Scale(depth=110, width=16, examples=50_000, epochs=164, batch_size=128),
}


def decide(measured: dict[str, tuple[float, float]], seeds: int, enough: bool = True) -> Verdict:
    """By mean and deviation over the seeds of what is to be small, by shortcut."""
    mean, spread = measured["identity"]
    beaten = [
        name
        for name, (other, deviation) in measured.items()
        if other < mean - 2 * np.sqrt((spread**2 + deviation**2) / seeds)
    ]
    return verdict(not beaten, enough=enough and seeds > 1)


def run(config: Config) -> Report:
    """Train the network with each of the shortcuts."""
    base = SCALES[config.scale]
    sizes = {
        name: getattr(config, name) or getattr(base, name)
        for name in ("depth", "width", "examples", "epochs")
    }
    scale = _Scale(**{**vars(base), **sizes})
    full = config.scale == "full"
    if full:
        train, test = small_cifar(scale.examples, 10_000)
    else:
        train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
        train = jax.tree.map(lambda leaf: leaf[: scale.examples], train)
    steps = scale.examples // scale.batch_size * scale.epochs
    drops = optim.piecewise_constant_schedule(0.1, {steps // 2: 0.1, steps * 3 // 4: 0.1})
    rate = drops if full else optim.cosine_onecycle_schedule(steps, 0.05)
    optimizer = optim.chain(optim.add_decayed_weights(1e-4), optim.sgd(rate, momentum=0.9))
    found = {
        name: learning(
            models.resnet_cifar(scale.depth, channels=3 if full else 1, width=scale.width, join=join),
            optimizer,
            train,
            test,
            epochs=scale.epochs,
            batch_size=scale.batch_size,
            seeds=config.seeds,
            changes=(data.augment.flip, data.augment.crop) if full else (),
        )
        for name, join in ((name, JOINS[name]) for name in config.shortcuts)
    }
    loss = {name: each.last("loss") for name, each in found.items()}
    error = {
        name: (1 - each.last("test_accuracy")[0], each.last("test_accuracy")[1])
        for name, each in found.items()
    }
    measured = error if full else loss
    order = sorted(measured, key=lambda name: measured[name][0])
    figure, panels = axes("epoch", "training loss", columns=2, width=9)
    for name, each in found.items():
        epochs = np.arange(1, scale.epochs + 1)
        panels[0, 0].plot(epochs, each.loss.mean(0), label=name)
        panels[0, 1].plot(epochs, 1 - each.test_accuracy.mean(0), label=name)
    panels[0, 1].set_ylabel("test error")
    panels[0, 1].legend(frameon=False, fontsize=8)
    rows = [
        [name, *(f"{mean:.3f} ± {spread:.3f}" for mean, spread in (loss[name], error[name])), PRINTED[name]]
        for name in order
    ]
    return Report(
        numbers={f"training loss, {name}: mean, deviation": list(loss[name]) for name in order}
        | {f"test error, {name}: mean, deviation": list(error[name]) for name in order},
        verdict=decide(measured, config.seeds, enough=scale == base and set(config.shortcuts) == set(JOINS)),
        because=f"{'test error' if full else 'training loss'} after {scale.epochs} epochs of {scale.depth} layers: "
        + ", ".join(f"{name} {measured[name][0]:.3f}" for name in order),
        figures={"training": figure},
        tables={
            "by shortcut": Table(
                ["shortcut", "training loss", "test error", "printed, ResNet-110, percent"], rows
            )
        },
    )
