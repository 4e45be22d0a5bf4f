"""Training on past the best epoch makes a network worse on new examples; a validation set says when to stop.

Claim X28. Few handwritten digits, some with a wrong label, and a network with room to learn them by heart. Its loss is
watched on validation digits and measured on test digits, which are others. Stopping is by patience: when the
validation loss has not been lower for so many epochs, the weights of its lowest epoch are taken (Prechelt 1998).

Refuted if, over the seeds, the test loss where it stopped is not below that of the last epoch by two standard errors,
or the test accuracy there is lower by as much, or stopping costs more than a fifth over the best epoch in hindsight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import curves
from experiments.report import Report, Verdict, rows_of, verdict
from purenets import data, losses, metrics, models, optim
from purenets.train.fit import Epoch
from purenets.train.run import mean_metrics


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 300
    wrong: float = 0.2
    """The share of training and validation labels that are drawn at random."""
    units: int = 128
    epochs: int = 60
    patience: int = 5
    seeds: int = 8


def sets(config: Config) -> dict[str, Any]:
    """Training, validation and test digits; the last have their own labels."""
    most, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    which, what = jax.random.split(jax.random.key(5))
    drawn = jax.random.randint(what, most[1].shape, 0, 10, most[1].dtype)
    labels = jnp.where(jax.random.bernoulli(which, config.wrong, most[1].shape), drawn, most[1])
    part = lambda first, last: (most[0][first:last], labels[first:last])
    n = config.examples
    return {"training": part(0, n), "validation": part(n, 2 * n), "test": test}


def histories(config: Config) -> dict[str, np.ndarray]:
    """Losses and test accuracy, ``[seeds, epochs]`` each."""
    given = sets(config)
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, config.units, 10)))
    objective = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})
    step = pn.make_step(objective, optim.adam(2e-3))

    def run(key: Any) -> dict[str, jax.Array]:
        def epoch(ts: pn.TrainState, _: None) -> Any:
            ts, _rows = pn.train(step, ts, given["training"], epochs=1, batch_size=32, ahead=0)
            found = {name: mean_metrics(objective, ts.params, {}, part, 300) for name, part in given.items()}
            return ts, {name: each["loss"] for name, each in found.items()} | {
                "test accuracy": found["test"]["accuracy"]
            }

        return jax.lax.scan(epoch, pn.start(model, step.optimizer, key), None, length=config.epochs)[1]

    return {name: np.asarray(x) for name, x in pn.sweep(run, seeds=config.seeds).results.items()}


def stopped_at(validation: np.ndarray, patience: int) -> int:
    """The index of the epoch whose weights :func:`purenets.early_stopping` hands back, or of the last one."""
    watch = pn.early_stopping(patience=patience)
    for number, loss in enumerate(validation):
        epoch = Epoch(number, cast(Any, number), {"validation/loss": float(loss)})
        watch(epoch)
        if epoch.stopped_with is not None:
            return cast(int, epoch.stopped_with)
    return len(validation) - 1


def gain(before: np.ndarray, after: np.ndarray) -> float:
    """By how many standard errors ``after`` is lower, for pairs over seeds."""
    difference = np.asarray(before, np.float64) - after
    return float(difference.mean() / max(difference.std(ddof=1) / np.sqrt(len(difference)), 1e-9))


def decide(loss: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> Verdict:
    """By the test losses and accuracies where it stopped, at the last and at the best epoch, over seeds."""
    if len(loss["last"]) < 3:
        return "inconclusive"
    lower = gain(loss["last"], loss["stopped"]) > 2 and gain(right["stopped"], right["last"]) > -2
    return verdict(lower and bool(loss["stopped"].mean() <= 1.2 * loss["best"].mean()))


def run(config: Config) -> Report:
    """Train on to the end, and see afterwards where one would have stopped."""
    history = histories(config)
    at = {
        "stopped": np.array([stopped_at(line, config.patience) for line in history["validation"]]),
        "last": np.full(config.seeds, config.epochs - 1),
        "best": history["test"].argmin(1),
    }
    pick = lambda name: {k: history[name][np.arange(config.seeds), index] for k, index in at.items()}
    loss, right = pick("test"), pick("test accuracy")
    means = {name: line.mean(0) for name, line in history.items()}
    return Report(
        numbers={f"test loss, {name} epoch: mean": float(each.mean()) for name, each in loss.items()}
        | {f"test loss, {name} epoch: deviation": float(each.std(ddof=1)) for name, each in loss.items()}
        | {f"test accuracy, {name} epoch: mean": float(each.mean()) for name, each in right.items()}
        | {f"epoch, {name}": (index + 1).tolist() for name, index in at.items()}
        | {"standard errors that stopping gains": gain(loss["last"], loss["stopped"])},
        verdict=decide(loss, right),
        because=f"the test loss is {loss['stopped'].mean():.3g} where stopped (epoch {at['stopped'].mean() + 1:.0f}), "
        f"{loss['last'].mean():.3g} after {config.epochs} epochs and {loss['best'].mean():.3g} at best; accuracy "
        f"{right['stopped'].mean():.1%}, {right['last'].mean():.1%} and {right['best'].mean():.1%}",
        figures={
            "losses": curves(
                {name: means[name] for name in ("training", "validation", "test")},
                x="epoch",
                y="cross-entropy (nats)",
                log="y",
            )
        },
        metrics=rows_of(means),
    )
