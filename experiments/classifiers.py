"""What the experiments on pictures share: small pictures, and the curves of a classifier over several seeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

import purenets as pn
from purenets import data, losses, metrics
from purenets.train.run import mean_metrics

__all__ = ["Learning", "learning", "part_of", "small_cifar", "standardised"]


class Learning(NamedTuple):
    """How a classifier learnt, ``[seeds, epochs]`` each, and where it ended, ``[seeds, ...]`` each."""

    loss: np.ndarray
    accuracy: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray
    params: Any
    state: Any

    def last(self, name: str) -> tuple[float, float]:
        """Mean and deviation over the seeds of the last epoch."""
        values = getattr(self, name)[:, -1]
        return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def part_of(pictures: Any, count: int) -> Any:
    """So many of them, by a fixed permutation, since they may come sorted by class."""
    order = jax.random.permutation(jax.random.key(2024), len(pictures[1]))[:count]
    return jax.tree.map(lambda leaf: leaf[order], pictures)


def standardised(train: Any, test: Any) -> tuple[Any, Any]:
    """Each channel with mean 0 and deviation 1 over the training pictures."""
    mean, deviation = train[0].mean((0, 1, 2)), train[0].std((0, 1, 2))
    train, test = (((x - mean) / deviation, y) for x, y in (train, test))
    return train, test


def small_cifar(examples: int, test_examples: int, size: int = 32) -> tuple[Any, Any]:
    """Some of CIFAR-10's pictures, standardised, shrunk to ``size`` pixels a side by means of squares."""

    def shrunk(pictures: Any) -> Any:
        x, y = pictures
        window = 32 // size
        return x.reshape(len(x), size, window, size, window, 3).mean((2, 4)), y

    train = shrunk(part_of(data.cifar10("train"), examples))
    return standardised(train, shrunk(part_of(data.cifar10("test"), test_examples)))


def learning(
    model: pn.Layer,
    optimizer: Any,
    train: Any,
    test: Any,
    *,
    epochs: int,
    batch_size: int = 64,
    seeds: int = 1,
    changes: tuple[Any, ...] = (),
    together: bool = False,
) -> Learning:
    """Train from each seed, one after another unless ``together``, in one program.

    ``changes`` are augmentations of the training pictures. The curves are in evaluation mode for the test
    pictures and as met in training for the others.
    """
    plain = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})
    step = pn.make_step(data.augment.augmented(plain, *changes) if changes else plain, optimizer)

    def run(key: Any) -> Any:
        def epoch(ts: pn.TrainState, _: None) -> Any:
            ts, rows = pn.train(step, ts, train, epochs=1, batch_size=batch_size, ahead=0)
            after = mean_metrics(plain, ts.params, ts.state, test, min(256, len(test[1])))
            return ts, (rows["loss"].mean(), rows["accuracy"].mean(), after["loss"], after["accuracy"])

        ts, curves = jax.lax.scan(epoch, pn.start(model, optimizer, key), None, length=epochs)
        return *curves, ts.params, ts.state

    found = pn.sweep(run, seeds=seeds, chunk=None if together else 1).results
    return Learning(*(np.asarray(x) for x in found[:4]), *found[4:])
