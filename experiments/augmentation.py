"""Changed copies of the pictures and a penalty on the weights both narrow the gap between training and test.

Claim X29, rows T08 and T09. A dense network learns few MNIST digits as they are, or shifted and turned a little
anew in every step, each with several strengths of weight decay (the gradient of an L2 penalty, held apart from Adam's
scaling). The share right is measured on the training digits as they are and on held-out digits.

Refuted if augmentation, or the best decay without it, does not narrow the gap or raise the share of test digits read
right by two standard errors of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import learning
from experiments.figures import curves, pictures
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, models, optim

CHANGES = (partial(data.augment.shift, most=2), partial(data.augment.rotate, degrees=10.0))


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 500
    units: int = 128
    decays: tuple[float, ...] = (0.3, 1.0, 3.0)
    epochs: int = 100
    seeds: int = 3


def decide(train: dict[str, float], test: dict[str, tuple[float, float]], seeds: int) -> Verdict:
    """By the shares right of training digits, and of test digits with their deviation over the seeds."""
    gap = {name: train[name] - test[name][0] for name in train}

    def helps(name: str) -> bool:
        error = np.hypot(test[name][1], test["neither"][1]) / np.sqrt(seeds)
        return gap[name] < gap["neither"] and test[name][0] - test["neither"][0] > 2 * error

    return verdict(helps("decay") and helps("augmentation"), enough=seeds > 1)


def run(config: Config) -> Report:
    """Train with every decay, with and without changed copies."""
    train, test = data.train_test_split(data.mnist("test"), 2000, jax.random.key(2024))
    train = jax.tree.map(lambda leaf: leaf[: config.examples], train)
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((784, config.units, config.units, 10)))
    rate = optim.cosine_decay_schedule(2e-3, config.epochs * (len(train[1]) // 50))
    read = jax.jit(
        jax.vmap(lambda p, s: jnp.mean(jnp.argmax(model.apply(p, s, train[0])[0], -1) == train[1]))
    )
    every, right, tested = {}, {}, {}
    for changed in (False, True):
        for decay in (0.0, *config.decays):
            found = learning(
                model,
                optim.adamw(rate, weight_decay=decay),
                train,
                test,
                epochs=config.epochs,
                batch_size=50,
                seeds=config.seeds,
                changes=CHANGES if changed else (),
                together=True,
            )
            every[changed, decay] = found
            right[changed, decay] = float(read(found.params, found.state).mean())
            tested[changed, decay] = found.last("test_accuracy")
    best = {
        changed: max(config.decays, key=lambda d, c=changed: tested[c, d][0]) for changed in (False, True)
    }
    kinds = {"neither": (False, 0.0), "decay": (False, best[False])}
    kinds |= {"augmentation": (True, 0.0), "both": (True, best[True])}
    train_of, test_of = ({name: of[kind] for name, kind in kinds.items()} for of in (right, tested))
    x = train[0][:1]
    turned = jnp.tile(x, (7, 1, 1, 1))
    for change, key in zip(CHANGES, jax.random.split(jax.random.key(0)), strict=True):
        turned = change(key, turned)
    rows = [
        [
            "changed copies" if changed else "as they are",
            decay,
            f"{right[changed, decay]:.2%}",
            f"{mean:.2%} ± {spread:.2%}",
            f"{right[changed, decay] - mean:.2%}",
        ]
        for (changed, decay), (mean, spread) in tested.items()
    ]
    return Report(
        numbers={f"training digits right, {name}": share for name, share in train_of.items()}
        | {f"test digits right, {name}: mean, deviation": list(each) for name, each in test_of.items()}
        | {"best decay, without and with augmentation": [best[False], best[True]]},
        verdict=decide(train_of, test_of, config.seeds),
        because="; ".join(
            f"{name}: {test_of[name][0]:.2%} of the test digits, gap {train_of[name] - test_of[name][0]:.2%}"
            for name in kinds
        ),
        figures={
            "test_digits_right": curves(
                {name: every[kind].test_accuracy.mean(0) for name, kind in kinds.items()},
                x="epoch",
                y="share of test digits right",
            ),
            "one_digit_changed": pictures(
                np.concatenate([np.asarray(x), np.asarray(turned)])[..., 0], ["as it is"] + [""] * 7
            ),
        },
        tables={
            "after training": Table(
                ["training digits", "decay", "right in training", "right in test", "gap"], rows
            )
        },
    )
