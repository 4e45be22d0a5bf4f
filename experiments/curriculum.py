"""The order of the examples: sorted by class is bad, shuffled is good, from easy to hard is said to be better.

Claim X27 (Bengio, Louradour, Collobert & Weston 2009 for the curriculum). A network on a part of the handwritten
digits with the same number of updates and batches of one size, drawn from the digits sorted by class, from all of
them, from a growing part of the easiest ones, and from a growing part of the hardest. Easy are those that a linear
model, trained before, gives a small loss.

Refuted if sorted digits are not worse than shuffled ones by two standard errors of the final test accuracy; or if the
curriculum does not come to nine tenths of new digits right sooner than shuffling, in the mean, by two errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.train.procedure import curriculum_order

Draw = Callable[[Any, jax.Array], jax.Array]
"""The indices of a batch from a key and the number of the step."""


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 1000
    batch_size: int = 16
    steps: int = 600
    every: int = 5
    """Steps between looks at the test digits."""
    growth: float = 0.5
    """The share of the steps after which the curriculum has all examples."""
    learning_rate: float = 0.05
    seeds: int = 16


def difficulty(train: Any) -> jax.Array:
    """The loss of each example under a linear model that saw them all for ten epochs, ``[n]``."""
    model = pn.serial(flat=pn.flatten(), dense=pn.dense(64, 10))
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.sgd(0.1))
    ts = pn.start(model, step.optimizer, jax.random.key(99))
    ts, _ = jax.jit(lambda ts: pn.train(step, ts, train, epochs=10, batch_size=50))(ts)
    return losses.softmax_cross_entropy(model.apply(ts.params, {}, train[0])[0], train[1])


def orders(config: Config, train: Any) -> dict[str, Draw]:
    """How batches are drawn, by name."""
    count, size = len(train[1]), config.batch_size
    by_class = jnp.argsort(train[1], stable=True)
    hardness = difficulty(train)

    def sorted_by_class(_: Any, step: jax.Array) -> jax.Array:
        return by_class[(step * size + jnp.arange(size)) % count]

    def shuffled(key: Any, _: jax.Array) -> jax.Array:
        return jax.random.randint(key, (size,), 0, count)

    def growing(score: jax.Array) -> Draw:
        def draw(key: Any, step: jax.Array) -> jax.Array:
            share = 0.1 + 0.9 * step / (config.growth * config.steps)
            order, part = curriculum_order(score, jnp.minimum(share, 1.0))
            return order[jax.random.randint(key, (size,), 0, part)]

        return draw

    return {
        "sorted by class": sorted_by_class,
        "shuffled": shuffled,
        "easy first": growing(hardness),
        "hard first": growing(-hardness),
    }


def accuracies(draw: Draw, config: Config, train: Any, test: Any) -> np.ndarray:
    """The share of test digits right at every look, ``[seeds, looks]``."""
    model = pn.serial(flat=pn.flatten(), mlp=models.mlp((64, 32, 10)))
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.sgd(config.learning_rate))

    def run(key: Any) -> jax.Array:
        weights, order = jax.random.split(key)

        def update(ts: pn.TrainState, i: jax.Array) -> Any:
            chosen = draw(jax.random.fold_in(order, i), i)
            return step(ts, jax.tree.map(lambda leaf: leaf[chosen], train))[0], None

        def look(ts: pn.TrainState, i: jax.Array) -> Any:
            ts, _ = jax.lax.scan(update, ts, i * config.every + jnp.arange(config.every))
            return ts, jnp.mean(jnp.argmax(model.apply(ts.params, {}, test[0])[0], -1) == test[1])

        looks = jnp.arange(config.steps // config.every)
        return jax.lax.scan(look, pn.start(model, step.optimizer, weights), looks)[1]

    return np.asarray(pn.sweep(run, seeds=config.seeds).results)


def steps_to(right: np.ndarray, level: float, every: int) -> np.ndarray:
    """The steps after which each run first is at the level; one look more than all if never."""
    there = right >= level
    return every * (np.where(there.any(1), there.argmax(1), right.shape[1]) + 1)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """By how many standard errors the mean of the first is above that of the second."""
    error = np.sqrt(sum(np.var(each, ddof=1) / len(each) for each in (first, second)))
    return float((np.mean(first) - np.mean(second)) / max(error, 1e-9))


def decide(final: dict[str, np.ndarray], steps: dict[str, np.ndarray]) -> Verdict:
    """By the final accuracies and the steps to the level, over seeds."""
    if len(final["shuffled"]) < 3:
        return "inconclusive"
    worse = apart(final["shuffled"], final["sorted by class"]) > 2
    return verdict(worse and apart(steps["shuffled"], steps["easy first"]) > 2)


def run(config: Config) -> Report:
    """All four orders."""
    train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    train = jax.tree.map(lambda leaf: leaf[: config.examples], train)
    right = {name: accuracies(draw, config, train, test) for name, draw in orders(config, train).items()}
    final = {name: each[:, -1] for name, each in right.items()}
    steps = {name: steps_to(each, 0.9, config.every) for name, each in right.items()}
    looks = config.every * (1 + np.arange(config.steps // config.every))
    return Report(
        numbers={f"test digits right, {name}: mean": float(each.mean()) for name, each in final.items()}
        | {f"test digits right, {name}: deviation": float(each.std(ddof=1)) for name, each in final.items()}
        | {f"steps to 90 %, {name}: mean": float(each.mean()) for name, each in steps.items()}
        | {f"steps to 90 %, {name}: deviation": float(each.std(ddof=1)) for name, each in steps.items()}
        | {"easy first sooner than shuffled, standard errors": apart(steps["shuffled"], steps["easy first"])},
        verdict=decide(final, steps),
        because=f"after {config.steps} steps {final['sorted by class'].mean():.1%} are right when sorted and "
        f"{final['shuffled'].mean():.1%} when shuffled; nine tenths after {steps['shuffled'].mean():.0f} steps "
        f"shuffled, {steps['easy first'].mean():.0f} easy first, {steps['hard first'].mean():.0f} hard first",
        figures={
            "learning_by_order": curves(
                {name: each.mean(0) for name, each in right.items()},
                x="step",
                y="share of test digits right",
                at=looks,
            )
        },
        tables={
            "orders": Table(
                ["order", "test digits right", "steps to 90 %"],
                [[name, f"{final[name].mean():.4f}", f"{steps[name].mean():.0f}"] for name in right],
            )
        },
    )
