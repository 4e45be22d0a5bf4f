"""In a deep network of sigmoids the layers near the output learn and those near the input do not.

Claim X05. The slope of a sigmoid is a quarter at most, so each layer on the way back shrinks the gradient
(Hochreiter 1991). The update ratio of a layer is the length of an update over that of the weights it changes; here,
the change of its kernel over an epoch of plain descent on handwritten digits. ReLU, drawn after He, for comparison.

Refuted if the first layer of the sigmoid network has more than a hundredth of the update ratio of its last one in
the first epoch, the ratios do not rise from layer to layer, or those of the ReLU network are not within ten.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, initializers, losses, optim

UNITS = {
    "sigmoid": (jax.nn.sigmoid, initializers.glorot_normal()),
    "ReLU": (jax.nn.relu, initializers.kaiming_normal()),
}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    layers: int = 6
    units: int = 32
    epochs: int = 20
    learning_rate: float = 0.05
    seeds: int = 8


def network(activation: Any, init: Any, config: Config) -> pn.Layer:
    """Hidden layers of equal width and a linear one, called ``layer_1`` and so on."""
    sizes = (64, *[config.units] * (config.layers - 1), 10)
    named: dict[str, Any] = {"flat": pn.flatten()}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes), 1):
        named[f"layer_{i}"] = pn.dense(n_in, n_out, kernel_init=init)
        if i < config.layers:
            named[f"activation_{i}"] = activation
    return pn.serial(**named)


def update_ratios(activation: Any, init: Any, config: Config, train: Any) -> np.ndarray:
    """``[seeds, epochs, layers]``, from input to output."""
    model = network(activation, init, config)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.sgd(config.learning_rate))
    kernels = lambda ts: [ts.params[f"layer_{i}"]["kernel"] for i in range(1, config.layers + 1)]

    def run(key: Any) -> jax.Array:
        def epoch(ts: pn.TrainState, _: None) -> Any:
            after, _rows = pn.train(step, ts, train, epochs=1, batch_size=64, ahead=0)
            pairs = zip(kernels(ts), kernels(after), strict=True)
            return after, jnp.stack([jnp.linalg.norm(b - a) / jnp.linalg.norm(a) for a, b in pairs])

        return jax.lax.scan(epoch, pn.start(model, step.optimizer, key), None, length=config.epochs)[1]

    return np.asarray(pn.sweep(run, seeds=config.seeds).results)


def decide(first: dict[str, np.ndarray]) -> Verdict:
    """By the update ratios ``[layers]`` in the first epoch."""
    sigmoid, relu = first["sigmoid"], first["ReLU"]
    fades = sigmoid[0] <= sigmoid[-1] / 100 and np.all(np.diff(sigmoid) > 0)
    return verdict(bool(fades and relu.max() <= 10 * relu.min()))


def run(config: Config) -> Report:
    """Both networks."""
    train, _ = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    found = {name: update_ratios(act, init, config, train) for name, (act, init) in UNITS.items()}
    first = {name: np.median(ratios[:, 0], 0) for name, ratios in found.items()}
    share = {name: ratios[:, 0, 0] / ratios[:, 0, -1] for name, ratios in found.items()}
    return Report(
        numbers={f"update ratio by layer in epoch 1, {name}": line.tolist() for name, line in first.items()}
        | {f"first over last layer, {name}: median": float(np.median(each)) for name, each in share.items()}
        | {
            f"first over last layer, {name}: range": [float(each.min()), float(each.max())]
            for name, each in share.items()
        }
        | {
            f"update ratio by layer in epoch {config.epochs}, {name}": np.median(ratios[:, -1], 0).tolist()
            for name, ratios in found.items()
        },
        verdict=decide(first),
        because=f"over the first epoch the first layer's update ratio is {np.median(share['sigmoid']):.1e} of the last "
        f"one's with sigmoids and {np.median(share['ReLU']):.2g} of it with ReLU",
        figures={
            "update_ratio_by_layer": curves(first, x="layer", y="update ratio in the first epoch", log="y")
        },
        tables={
            "update ratio in the first epoch": Table(
                ["layer", *first],
                [[i + 1, *(f"{line[i]:.1e}" for line in first.values())] for i in range(config.layers)],
            )
        },
    )
