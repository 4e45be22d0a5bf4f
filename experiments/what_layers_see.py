"""Does the first layer of a digit reader look for edges? Its weights, as pictures, hardly look like any.

Claim X53: a story told of the network of 784, 16, 16 and 10 units is that its first hidden layer finds little edges
and the second shapes made of them; the source itself doubts it. Each unit's weights are compared with a bank of
oriented edges and bars (Gabor functions of many places, sizes, directions and phases): the share of the weights'
energy that the best of them explains. Beside it stand the same network untrained, the trained weights with their
pixels shuffled, and real strokes, patches cut from the digits, which show what the measure gives for edges.

The story is refuted if the median unit is explained to less than half, given that the strokes are. Then the same
for the pictures that the second layer would like best, the product of the weights of both layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import purenets as pn
from experiments.classifiers import learning
from experiments.figures import pictures
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, models, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 8000
    epochs: int = 20
    seeds: int = 3


def bank() -> np.ndarray:
    """Gabor functions of mean zero and norm 1, ``[count, 784]``: 196 places, 3 sizes, 8 directions, 2 phases."""
    ys, xs = np.mgrid[:28, :28].astype(float)
    found = []
    for y in range(1, 28, 2):
        for x in range(1, 28, 2):
            for size in (1.5, 2.5, 4.0):
                for angle in np.pi * np.arange(8) / 8:
                    along = (xs - x) * np.cos(angle) + (ys - y) * np.sin(angle)
                    across = -(xs - x) * np.sin(angle) + (ys - y) * np.cos(angle)
                    window = np.exp(-(along**2 + 0.25 * across**2) / (2 * size**2))
                    found += [window * f(2 * np.pi * along / (4 * size)) for f in (np.cos, np.sin)]
    filters = np.stack(found).reshape(len(found), -1)
    filters -= filters.mean(1, keepdims=True)
    return filters / np.linalg.norm(filters, axis=1, keepdims=True)


def explained(images: Any, filters: np.ndarray) -> np.ndarray:
    """The share of each picture's energy about its mean that the best filter explains, ``[count]``."""
    flat = np.asarray(images, np.float64).reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return np.square(flat @ filters.T).max(1) / np.square(flat).sum(1)


def strokes(images: Any) -> np.ndarray:
    """Windows of a deviation of three pixels about places on the digits' ink, ``[count, 784]``."""
    x = np.asarray(images)[..., 0]
    generator = np.random.default_rng(0)
    ys, xs = np.mgrid[:28, :28]
    cut = []
    for image in x:
        places = np.argwhere(image > 0.5)
        row, column = places[generator.integers(len(places))]
        cut.append(image * np.exp(-((ys - row) ** 2 + (xs - column) ** 2) / (2 * 3.0**2)))
    return np.stack(cut).reshape(len(cut), -1)


def decide(trained: float, real: float) -> Verdict:
    """By the medians of the share explained: of the trained units, and of real strokes."""
    return verdict(trained >= 0.5, enough=real >= 0.5)


def run(config: Config) -> Report:
    """Train from several seeds and compare the weights with the bank."""
    train, test = data.train_test_split(data.mnist("test"), 2000, jax.random.key(2024))
    train = jax.tree.map(lambda leaf: leaf[: config.examples], train)
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((784, 16, 16, 10), activation=jax.nn.sigmoid))
    found = learning(
        model, optim.adam(3e-3), train, test, epochs=config.epochs, seeds=config.seeds, together=True
    )
    keys = jax.random.split(jax.random.key(0), config.seeds)
    before = jax.vmap(lambda key: model.init(key)[0])(keys)["mlp"]["dense_1"]["kernel"]
    first, second = (np.asarray(found.params["mlp"][f"dense_{i}"]["kernel"]) for i in (1, 2))
    units = lambda kernel: np.swapaxes(np.asarray(kernel), 1, 2).reshape(-1, 784)
    weights = units(first)
    shuffled = np.random.default_rng(0).permuted(weights, axis=1)
    filters = bank()
    of = {
        "first layer, trained": explained(weights, filters),
        "first layer, untrained": explained(units(before), filters),
        "first layer, pixels shuffled": explained(shuffled, filters),
        "second layer through the first": explained(units(first @ second), filters),
        "strokes of digits": explained(strokes(test[0][:200]), filters),
    }
    median = {name: float(np.median(values)) for name, values in of.items()}
    trained, real = median["first layer, trained"], median["strokes of digits"]
    accuracy, spread = found.last("test_accuracy")
    shown = weights[:16].reshape(-1, 28, 28)
    through = units(first @ second)[:16].reshape(-1, 28, 28)
    rows = [
        [name, f"{np.quantile(v, 0.1):.3f}", f"{np.median(v):.3f}", f"{np.quantile(v, 0.9):.3f}"]
        for name, v in of.items()
    ]
    return Report(
        numbers={f"explained by the best edge, {name}: median": value for name, value in median.items()}
        | {"test accuracy": accuracy, "test accuracy, deviation": spread},
        verdict=decide(trained, real),
        because=f"the best of {len(filters):,} edges and bars explains {trained:.0%} of a trained unit in the "
        f"median, {median['first layer, untrained']:.0%} of an untrained one and {real:.0%} of a real stroke",
        figures={
            "weights_of_the_first_layer": pictures(
                shown, [f"{s:.2f}" for s in of["first layer, trained"][:16]]
            ),
            "second_layer_through_the_first": pictures(through, [""] * 16),
        },
        tables={"share explained": Table(["pictures", "tenth", "median", "nine tenths"], rows)},
    )
