"""Too few parameters for the data underfit, too many overfit, and more data move the line.

Claim X59. Noisy samples of a smooth function of one number, and tanh networks of one hidden layer from one unit to
many, trained by Adam until the training error stands. Underfit is a high error on training and new data alike; overfit
is a training error below the noise and a higher one on new data.

Refuted if the training error does not fall with the width; if the error on new data is not at its lowest between
the narrowest and the widest, with both at least a quarter above it; or if with many examples the widest network's
gap between the two errors is not less than half of that with few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import initializers, losses, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    widths: tuple[int, ...] = (1, 2, 4, 8, 32, 128)
    few: int = 16
    many: int = 160
    noise: float = 0.3
    steps: int = 4000
    seeds: int = 16


def truth(x: ArrayLike) -> jax.Array:
    """What the samples are of, on [-1, 1]."""
    return jnp.sin(5 * jnp.asarray(x))


def errors(width: int, examples: int, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squared errors on training data and of the truth, ``[seeds]`` each, and the first seed's curve."""
    wide = initializers.normal(5.0)
    model = pn.serial(
        hidden=pn.dense(1, width, kernel_init=wide, bias_init=initializers.normal(3.0)),
        tanh=jnp.tanh,
        head=pn.dense(width, 1),
    )
    objective = pn.supervised(model, losses.squared_error)
    step = pn.make_step(objective, optim.adam(optim.cosine_decay_schedule(0.02, config.steps)))
    line = jnp.linspace(-1, 1, 200)[:, None]

    def run(key: Any) -> Any:
        weights, places, noise = jax.random.split(key, 3)
        x = jax.random.uniform(places, (examples, 1), minval=-1, maxval=1)
        y = truth(x) + config.noise * jax.random.normal(noise, x.shape)
        ts = pn.start(model, step.optimizer, weights)
        ts, _ = jax.lax.scan(lambda ts, _: (step(ts, (x, y))[0], None), ts, None, length=config.steps)
        curve = model.apply(ts.params, {}, line)[0]
        return (
            objective(ts.params, {}, (x, y), None, False)[0],
            jnp.mean((curve - truth(line)) ** 2),
            curve[:, 0],
        )

    train, new, curve = (np.asarray(x) for x in pn.sweep(run, seeds=config.seeds).results)
    # The error on new samples is that of the truth and the noise on them.
    return train, new + config.noise**2, curve[0]


def decide(train: np.ndarray, new: np.ndarray, gap: tuple[float, float]) -> Verdict:
    """By the median errors by width with few examples, and the widest network's gap with few and with many."""
    best = int(np.argmin(new))
    between = 0 < best < len(new) - 1 and min(new[0], new[-1]) >= 1.25 * new[best]
    return verdict(bool(np.all(np.diff(train) <= 0.01) and between and gap[1] < gap[0] / 2))


def run(config: Config) -> Report:
    """All widths with few and with many examples."""
    found = {
        count: [errors(width, count, config) for width in config.widths]
        for count in (config.few, config.many)
    }
    middle = {
        count: np.array([[np.median(e) for e in each[:2]] for each in of]) for count, of in found.items()
    }
    few, many = middle[config.few], middle[config.many]
    gap = (float(few[-1, 1] - few[-1, 0]), float(many[-1, 1] - many[-1, 0]))
    best = int(np.argmin(few[:, 1]))
    figure, panels = axes("hidden units", "mean squared error", columns=2, width=9)
    for panel, (count, lines) in zip(panels.flat, middle.items(), strict=True):
        for name, line in zip(("training", "new samples"), lines.T, strict=True):
            panel.plot(config.widths, line, marker="o", label=name)
        panel.axhline(config.noise**2, color="0.6", linewidth=1, label="noise")
        panel.set(title=f"{count} examples", xscale="log", yscale="log")
        panel.legend(frameon=False)
    fits, panel = axes("x", "y")
    line = np.linspace(-1, 1, 200)
    panel.plot(line, truth(line), label="truth")
    for index in sorted({0, best, len(config.widths) - 1}):
        panel.plot(line, np.clip(found[config.few][index][2], -3, 3), label=f"{config.widths[index]} units")
    panel.legend(frameon=False)
    spread = [float(np.subtract(*np.percentile(each[1], [75, 25]))) for each in found[config.few]]
    return Report(
        numbers={"widths": list(config.widths), "parameters": [3 * width + 1 for width in config.widths]}
        | {
            f"training error by width, {count} examples: median": of[:, 0].tolist()
            for count, of in middle.items()
        }
        | {
            f"error on new samples by width, {count} examples: median": of[:, 1].tolist()
            for count, of in middle.items()
        }
        | {
            f"its middle half over seeds, {config.few} examples": spread,
            "gap of the widest, few and many examples": list(gap),
        },
        verdict=decide(few[:, 0], few[:, 1], gap),
        because=f"with {config.few} examples the error on new samples is {few[0, 1]:.2g} with {config.widths[0]} unit, "
        f"{few[best, 1]:.2g} with {config.widths[best]} and {few[-1, 1]:.2g} with {config.widths[-1]} (noise "
        f"{config.noise**2:.2g}); the widest network's gap is {gap[0]:.2g}, with {config.many} examples {gap[1]:.2g}",
        figures={"errors_by_width": figure, "fits_to_few_samples": fits},
        tables={
            f"{count} examples": Table(
                ["units", "training error", "error on new samples"],
                [[w, f"{a:.3f}", f"{b:.3f}"] for w, (a, b) in zip(config.widths, of, strict=True)],
            )
            for count, of in middle.items()
        },
    )
