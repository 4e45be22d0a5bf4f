"""Weights that are too large blow a deep network up until its numbers end; clipping the gradient keeps them finite.

Claim X06. A deep ReLU network on noise, drawn after He et al. 2015 and multiplied by a gain. Outputs grow with the
gain to the power of the layers and gradients with nearly twice that power, so that plain descent soon overflows: the
loss becomes infinite and then not a number. The step of the first loss that is not finite is counted. Clipping the
norm of the gradient is after Pascanu, Mikolov & Bengio 2013.

Refuted if with a gain of 1 a run ends, with the largest gain one does not, a larger gain lasts longer than a smaller
one, or a run ends whose gradient is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import initializers, losses, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    layers: int = 16
    units: int = 32
    gains: tuple[float, ...] = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0)
    steps: int = 200
    rate: float = 1e-3
    seeds: int = 8


def trained(config: Config, optimizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first gradient's norm and the losses, ``[gains, seeds]`` and ``[gains, seeds, steps]``."""
    hidden = pn.serial(
        dense=pn.dense(config.units, config.units, kernel_init=initializers.kaiming_normal()),
        relu=jax.nn.relu,
    )
    model = pn.serial(body=pn.repeat(hidden, config.layers), head=pn.dense(config.units, 1))
    objective = pn.supervised(model, losses.half_squared_error)
    step = pn.make_step(objective, optimizer)

    def run(key: Any, gain: jax.Array) -> Any:
        weights, inputs, targets = jax.random.split(key, 3)
        batch = jax.random.normal(inputs, (64, config.units)), jax.random.normal(targets, (64, 1))
        ts = pn.start(model, optimizer, weights)
        ts = ts._replace(params=jax.tree.map(lambda w: gain * w, ts.params))
        slope = jax.grad(lambda p: objective(p, {}, batch, None, True)[0])(ts.params)
        _, rows = jax.lax.scan(lambda ts, _: step(ts, batch), ts, None, length=config.steps)
        return jnp.linalg.norm(ravel_pytree(slope)[0]), rows["loss"]

    first, loss = pn.sweep(run, {"gain": config.gains}, seeds=config.seeds).results
    shape = (len(config.gains), config.seeds)
    return np.asarray(first).reshape(shape), np.asarray(loss).reshape(*shape, -1)


def ends_at(loss: np.ndarray) -> np.ndarray:
    """The number of the first step whose loss is not finite, one more than there are without one."""
    gone = ~np.isfinite(loss)
    return np.where(gone.any(-1), gone.argmax(-1), loss.shape[-1]) + 1


def decide(ends: np.ndarray, clipped: np.ndarray, steps: int) -> Verdict:
    """By the steps at which runs end, ``[gains, seeds]``, without and with clipping."""
    middle = np.median(ends, 1)
    falls = bool(np.all(np.diff(middle) <= 0))
    return verdict(
        falls and bool(np.all(ends[0] > steps) and np.all(ends[-1] <= steps) and np.all(clipped > steps))
    )


def run(config: Config) -> Report:
    """Plain and clipped."""
    plain = optim.sgd(config.rate)
    first, loss = trained(config, plain)
    _, kept = trained(config, optim.chain(optim.clip_by_global_norm(1.0), plain))
    ends, clipped = ends_at(loss), ends_at(kept)
    middle = np.median(ends, 1)
    growth = np.median(first, 1)
    # With all L + 1 kernels times g the output is times g^(L + 1) and, once it is large, the gradient g^(2 L + 1).
    power = float(np.diff(np.log(growth[-2:]))[0] / np.diff(np.log(config.gains[-2:]))[0])
    figure, panels = axes("gain of the weights", "", columns=2, width=8.5)
    panels[0, 0].plot(config.gains, growth, marker="o")
    panels[0, 0].set(ylabel="norm of the first gradient", yscale="log", xscale="log")
    panels[0, 1].plot(config.gains, middle, marker="o", label="plain")
    panels[0, 1].plot(config.gains, np.median(clipped, 1), marker="s", label="clipped")
    panels[0, 1].set(ylabel="first step that is not finite", yscale="log")
    panels[0, 1].axhline(config.steps, color="0.7", linewidth=1)
    panels[0, 1].legend(frameon=False)
    return Report(
        numbers={
            "gains": list(config.gains),
            f"first step that is not finite (more than {config.steps}: none): median": middle.tolist(),
            "its least and most": [[int(each.min()), int(each.max())] for each in ends],
            "runs that end, plain": int(np.sum(ends <= config.steps)),
            "runs that end, clipped": int(np.sum(clipped <= config.steps)),
            "runs": ends.size,
            "norm of the first gradient: median": growth.tolist(),
            "power of the gain that it grows with in the end": power,
        },
        verdict=decide(ends, clipped, config.steps),
        because=f"{np.sum(ends[0] <= config.steps)} of {config.seeds} runs end at a gain of {config.gains[0]:g}; at "
        f"{config.gains[-1]:g} they all end at step {middle[-1]:.0f}; the first gradient grows with the gain to the "
        f"power {power:.0f}; of {clipped.size} clipped runs {np.sum(clipped <= config.steps)} end",
        figures={"gradient_and_end_by_gain": figure},
        tables={
            "by gain": Table(
                ["gain", "norm of the first gradient", "first step that is not finite"],
                [[g, f"{n:.2e}", int(m)] for g, n, m in zip(config.gains, growth, middle, strict=True)],
            )
        },
    )
