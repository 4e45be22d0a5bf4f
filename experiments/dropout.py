"""Dropout narrows the gap between training and test, makes hidden units sparse, and its mean may be had in one pass.

Claims X15 and X16 (Srivastava et al. 2014, sections 6.1.1, 7.2 and 7.5 and their figure 11). A wide dense network
reads MNIST digits after training on few of them, with and without half of its hidden units dropped. An autoencoder
of 256 ReLU units shows how many of them are active. At test time the mean over N random masks (Monte Carlo) is
compared with one pass through the whole network, whose weights stand for the mean (weight scaling).

Refuted if dropout does not raise the share of test digits read right or does not narrow the gap; or its hidden units
are not sparser, by the share that is silent and by their mean; or if no N up to the largest brings the Monte Carlo
mean within a tenth of the error of weight scaling, or already N = 1 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import Learning, learning
from experiments.figures import axes, curves
from experiments.report import Report, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.monte_carlo import monte_carlo

SAMPLES = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    examples: int = 1000
    units: int = 512
    epochs: int = 60
    seeds: int = 3
    encoder_epochs: int = 30
    draws: int = 8


def network(units: int, rate: float) -> pn.Layer:
    """Pictures ``[batch, 28, 28, 1]`` to logits, half of the units dropped and a fifth of the pixels."""
    return pn.serial(
        flat=pn.flatten(), pixels=pn.dropout(rate * 0.4), mlp=models.mlp((784, units, units, 10), rate=rate)
    )


def autoencoder(rate: float) -> pn.Layer:
    """Pictures to pictures through 256 ReLU units, kept by a tap before they are dropped."""
    return pn.serial(
        flat=pn.flatten(),
        encode=pn.dense(784, 256),
        hidden=jax.nn.relu,
        dropped=pn.dropout(rate),
        decode=pn.dense(256, 784),
    )


def hidden_units(config: Config, rate: float, train: Any, test: Any) -> np.ndarray:
    """The activations of a trained autoencoder's hidden units on the test pictures, ``[pictures, 256]``."""
    model = autoencoder(rate)

    def loss(output: Any, y: Any) -> Any:
        return losses.squared_error(output, y.reshape(len(y), -1)).sum(-1)

    step = pn.make_step(pn.supervised(model, loss), optim.adam(1e-3))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    run = jax.jit(partial(pn.train, step, epochs=config.encoder_epochs, batch_size=100))
    ts, _ = run(ts, (train[0], train[0]))
    tapped = pn.edit(model, "hidden", pn.tap)
    (values,) = pn.taps(tapped.apply(ts.params, ts.state, test[0])[1]).values()
    return np.asarray(values)


def test_errors(config: Config, found: Learning, test: Any) -> tuple[float, np.ndarray]:
    """The error of weight scaling, and of the Monte Carlo mean by number of masks, ``[samples, draws]``."""
    model = pn.serial(network=network(config.units, 0.5), chances=jax.nn.softmax)
    params, state = ({"network": jax.tree.map(lambda x: x[0], tree)} for tree in (found.params, found.state))
    x, y = test

    @partial(jax.jit, static_argnames="samples")
    def error(keys: Any, samples: int) -> Any:
        def one(key: Any) -> Any:
            mean = monte_carlo(model, params, state, x, key=key, samples=samples).mean
            return jnp.mean(jnp.argmax(mean, -1) != y)

        return jax.lax.map(one, keys)

    keys = jax.random.split(jax.random.key(5), (len(SAMPLES), config.draws))
    sampled = np.stack([error(jax.random.clone(keys)[i], samples) for i, samples in enumerate(SAMPLES)])
    return float(jnp.mean(jnp.argmax(model.apply(params, state, x)[0], -1) != y)), sampled


def decide(
    right: dict[str, tuple[float, float]], silent: dict[str, float], scaled: float, sampled: list[float]
) -> Verdict:
    """By shares right in training and test, the silent shares of hidden units, and the errors at test time."""
    gap = {name: train - test for name, (train, test) in right.items()}
    better = right["with"][1] > right["without"][1] and gap["with"] < gap["without"]
    near = np.array(sampled) <= 1.1 * scaled
    return verdict(better and silent["with"] > silent["without"] and bool(near.any()) and not near[0])


def run(config: Config) -> Report:
    """Train with and without dropout, and look inside."""
    train, test = data.train_test_split(data.mnist("test"), 2000, jax.random.key(2024))
    train = jax.tree.map(lambda leaf: leaf[: config.examples], train)
    rates = {"with": 0.5, "without": 0.0}
    found = {
        name: learning(
            network(config.units, rate),
            optim.adam(1e-3),
            train,
            test,
            epochs=config.epochs,
            batch_size=100,
            seeds=config.seeds,
        )
        for name, rate in rates.items()
    }
    right = {}
    for name, each in found.items():
        # Dropout lowers the share right as met in training, so it is measured anew, without it.
        model = network(config.units, 0.0)
        read = jax.vmap(
            lambda p, s, m=model: jnp.mean(jnp.argmax(m.apply(p, s, train[0])[0], -1) == train[1])
        )
        right[name] = (float(read(each.params, each.state).mean()), each.last("test_accuracy")[0])
    units = {name: hidden_units(config, rate, train, test) for name, rate in rates.items()}
    silent = {name: float((values == 0).mean()) for name, values in units.items()}
    means = {name: float(values.mean()) for name, values in units.items()}
    scaled, sampled = test_errors(config, found["with"], test)
    histogram, panels = axes("mean activation of a unit", "units", columns=2, rows=2, width=8, height=5)
    for row, (name, values) in zip(panels, units.items(), strict=True):
        row[0].hist(values.mean(0), bins=40, color="0.4")
        row[1].hist(values.ravel(), bins=40, color="0.4", log=True)
        row[1].set_xlabel("activation")
        row[1].set_ylabel("units and pictures")
        for panel in row:
            panel.set_title(f"{name} dropout")
    by_samples, panel = axes("masks averaged, N", "test error")
    panel.errorbar(SAMPLES, sampled.mean(1), sampled.std(1), capsize=2, label="Monte Carlo mean")
    panel.axhline(scaled, color="black", linestyle="--", label="weight scaling")
    panel.set_xscale("log")
    panel.legend(frameon=False)
    errors = [float(e) for e in sampled.mean(1)]
    near = [n for n, e in zip(SAMPLES, errors, strict=True) if e <= 1.1 * scaled]
    return Report(
        numbers={f"training digits right, {name} dropout": right[name][0] for name in rates}
        | {f"test digits right, {name} dropout": right[name][1] for name in rates}
        | {f"test digits right, {name}: deviation": found[name].last("test_accuracy")[1] for name in rates}
        | {f"silent share of hidden units, {name} dropout": silent[name] for name in rates}
        | {f"mean activation, {name} dropout": means[name] for name in rates}
        | {"error of weight scaling": scaled, f"error of the mean of {list(SAMPLES)} masks": errors},
        verdict=decide(right, silent, scaled, errors),
        because=f"test digits right: {right['with'][1]:.2%} with dropout, {right['without'][1]:.2%} without; gap "
        f"{right['with'][0] - right['with'][1]:.2%} against {right['without'][0] - right['without'][1]:.2%}; silent "
        f"units {silent['with']:.0%} against {silent['without']:.0%}; the Monte Carlo mean errs on {errors[0]:.2%} at "
        f"N = 1 and comes within a tenth of weight scaling's {scaled:.2%} at N = {near[0] if near else 'none'}",
        figures={
            "test_digits_right": curves(
                {f"{name} dropout": each.test_accuracy.mean(0) for name, each in found.items()},
                x="epoch",
                y="share of test digits right",
            ),
            "hidden_units": histogram,
            "error_by_masks": by_samples,
        },
    )
