"""More than three hidden layers of sigmoids do not help, unless each is first trained on its own without labels.

Claim X56 (Hinton, Osindero & Teh 2006; Bengio et al. 2007). Stacks of sigmoid layers on scikit-learn's 8 x 8 digits,
their pixels ink or not, with one to six hidden layers, are trained by the same number of epochs from weights as
drawn (Glorot & Bengio 2010) and from restricted Boltzmann machines, one trained on top of the other. Only some of the
digits have labels, as was the point of it; the machines see all of them but the test's.

Two claims, both needed. Without: the best error of more than three layers is not below that of three or fewer by
more than a point. With: at the most layers the error is below half of what it is without. Refuted if one is not so.
Left open if the two errors at the most layers are within two standard errors of each other over the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import classic, data, losses, models, optim
from purenets.layer import Params


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    depths: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    width: int = 64
    labelled: int = 500
    epochs: int = 60
    pretraining_epochs: int = 80
    pretraining_batch: int = 10
    learning_rate: float = 3e-3
    batch_size: int = 50
    seeds: int = 4


def pretrained(key: jax.Array, x: jax.Array, config: Config) -> Params:
    """The hidden layers of the deepest stack; a shallower one is made of the first of them."""
    sizes = (config.width,) * max(config.depths)
    return classic.belief.pretrain_rbms(
        key, x, sizes, epochs=config.pretraining_epochs, batch_size=config.pretraining_batch
    )


def trained(
    key: jax.Array, found: Params, depth: int, digits: data.Split, config: Config
) -> tuple[jax.Array, jax.Array]:
    """The loss of each epoch, and the share of the test misread at the end, from the hidden layers found if any are."""
    model = models.mlp((64, *(config.width,) * depth, 10), activation=jax.nn.sigmoid)
    optimizer = optim.adam(config.learning_rate)
    ts = pn.start(model, optimizer, key)
    own = {
        name: leaves for name, leaves in found.items() if name in ts.params and name != f"dense_{depth + 1}"
    }
    ts = ts._replace(params={**ts.params, **own})
    (x, y), (test_x, test_y) = digits
    labelled = (x[: config.labelled], y[: config.labelled])
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optimizer)
    ts, metrics = pn.train(step, ts, labelled, epochs=config.epochs, batch_size=config.batch_size, ahead=0)
    wrong = jnp.argmax(model.apply(ts.params, ts.state, test_x)[0], -1) != test_y
    return metrics["loss"].mean(-1), wrong.mean()


def decide(without: np.ndarray, with_: np.ndarray, depths: tuple[int, ...]) -> Verdict:
    """By the errors ``[depths, seeds]`` without and with pre-training."""
    middle = without.mean(1)
    deep = np.array(depths) > 3
    helped = bool(middle[deep].min(initial=1.0) < middle[~deep].min(initial=1.0) - 0.01)
    gap = float(without[-1].mean() - with_[-1].mean())
    noise = float(np.hypot(without[-1].std(ddof=1), with_[-1].std(ddof=1)) / np.sqrt(without.shape[1]))
    halved = bool(with_[-1].mean() < without[-1].mean() / 2)
    return verdict(not helped and halved, enough=bool(deep.any()) and (helped or abs(gap) > 2 * noise))


def run(config: Config) -> Report:
    """Every depth with and without, all seeds at once."""
    images, labels = data.digits()
    # Ink or none, since the units of these machines are 0 or 1.
    bits = (images.reshape(len(images), -1) > 0.45).astype(jnp.float32)
    digits = data.train_test_split((bits, labels), 0.2, jax.random.key(2024))
    x = digits.train[0]
    keys = jax.random.split(jax.random.key(1), config.seeds)
    machines = jax.jit(jax.vmap(lambda key: pretrained(key, x, config)))(keys)
    starts: dict[str, Params] = {"as drawn": {}, "pre-trained": machines}
    errors: dict[str, list[np.ndarray]] = {name: [] for name in starts}
    last = {}
    for depth in config.depths:
        for name, start in starts.items():
            keys = jax.random.split(jax.random.key(0), config.seeds)  # the same for both
            many = jax.vmap(lambda key, found, depth=depth: trained(key, found, depth, digits, config))
            loss, wrong = jax.jit(many)(keys, start)
            errors[name].append(np.asarray(wrong))
            last[f"{name}, {depth} layers"] = np.asarray(loss).mean(0)
    without, with_ = (np.stack(found) for found in errors.values())
    figure, panel = axes("hidden layers", "share misread (mean and range of the seeds)")
    for name, each in (("as drawn", without), ("pre-trained", with_)):
        mean = each.mean(1)
        panel.errorbar(
            config.depths, mean, [mean - each.min(1), each.max(1) - mean], marker="o", capsize=3, label=name
        )
    panel.set_ylim(0)
    panel.legend(frameon=False)
    deepest = config.depths[-1]
    shown = {name: line for name, line in last.items() if name.endswith((f" {deepest} layers", " 2 layers"))}
    return Report(
        numbers={
            "misread as drawn, by layers": without.mean(1).tolist(),
            "misread pre-trained, by layers": with_.mean(1).tolist(),
            "seeds": config.seeds,
        },
        verdict=decide(without, with_, config.depths),
        because=f"with {deepest} hidden layers {without[-1].mean():.1%} of the test are misread from weights as drawn "
        f"and {with_[-1].mean():.1%} after pre-training; the fewest as drawn are {without.mean(1).min():.1%}, with "
        f"{config.depths[int(without.mean(1).argmin())]} layers",
        figures={"error_by_depth": figure, "loss": curves(shown, x="epoch", y="cross-entropy (nats)")},
        tables={
            "Share misread": Table(
                ["hidden layers", "as drawn", "deviation", "pre-trained", "deviation"],
                [
                    [depth, float(a.mean()), float(a.std(ddof=1)), float(b.mean()), float(b.std(ddof=1))]
                    for depth, a, b in zip(config.depths, without, with_, strict=True)
                ],
            )
        },
        metrics=[
            {"start": name, "depth": depth, "seed": seed, "misread": float(wrong)}
            for name, found in (("as drawn", without), ("pre-trained", with_))
            for depth, row in zip(config.depths, found, strict=True)
            for seed, wrong in enumerate(row)
        ],
    )
