"""AdaGrad's steps fade as 1 / sqrt(t), RMSProp's do not; and a rare feature gets larger steps than a frequent
one.

Claims X36 and X37 (Duchi et al. 2011; Tieleman & Hinton 2012). Slopes are drawn from one distribution
throughout, so that what changes in the size of a step is the rule's doing. The exponent is that of a power
law fitted to the size of the steps; sparse features have a slope in one step of a hundred.

Refuted if AdaGrad's exponent is not within 0.05 of -1/2, RMSProp's not within 0.05 of 0, or the rare
feature's steps under AdaGrad are not at least five times the frequent one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.figures import curves
from experiments.report import Report, Verdict, verdict
from purenets import optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    learning_rate: float = 0.1
    steps: int = 4000
    seeds: int = 32
    every: int = 100


def sizes(optimizer: Any, slopes: jax.Array) -> jax.Array:
    """The absolute updates for slopes ``[steps, n]``."""

    def step(state: Any, slope: jax.Array) -> Any:
        update, state = optimizer.update(slope, state)
        return state, jnp.abs(update)

    return jax.lax.scan(step, optimizer.init(jnp.zeros_like(slopes[0])), slopes)[1]


def exponent(size: np.ndarray, first: int) -> float:
    """Of the power law through the sizes from a step on."""
    t = np.arange(1, len(size) + 1)[first:]
    return float(np.polyfit(np.log(t), np.log(size[first:]), 1)[0])


def decide(adagrad: float, rmsprop: float, ratio: float) -> Verdict:
    """By the two exponents, and how many times larger the steps of the rare feature are."""
    return verdict(abs(adagrad + 0.5) < 0.05 and abs(rmsprop) < 0.05 and ratio >= 5)


def run(config: Config) -> Report:
    """Dense slopes for the exponents, sparse ones for the ratio, means over seeds."""
    key = jax.random.key(0)
    dense = jax.random.normal(jax.random.fold_in(key, 0), (config.steps, config.seeds))
    rules = {
        "AdaGrad": optim.adagrad(config.learning_rate, initial_accumulator_value=0.0),
        "RMSProp": optim.rmsprop(config.learning_rate, decay=0.99),
    }
    mean = {
        name: np.asarray(jax.jit(lambda g, r=rule: sizes(r, g))(dense)).mean(1)
        for name, rule in rules.items()
    }
    first = config.steps // 8
    powers = {name: exponent(size, first) for name, size in mean.items()}
    rare = (jnp.arange(config.steps) % config.every == 0)[:, None]
    signs = jax.random.rademacher(jax.random.fold_in(key, 1), (config.steps, config.seeds), jnp.float32)
    steps = {
        name: np.asarray(sizes(rules["AdaGrad"], signs * mask))
        for name, mask in (("rare", rare), ("frequent", jnp.ones_like(rare)))
    }
    late = np.arange(config.steps) >= config.steps // 2
    when = late & np.asarray(rare[:, 0])
    ratio = float(steps["rare"][when].mean() / steps["frequent"][when].mean())
    block = max(1, config.steps // 100)
    smooth = {
        name: size[: len(size) // block * block].reshape(-1, block).mean(1) for name, size in mean.items()
    }
    return Report(
        numbers={
            "exponent of AdaGrad's steps": powers["AdaGrad"],
            "exponent of RMSProp's steps": powers["RMSProp"],
            "steps of the rare feature over those of the frequent one": ratio,
            "seeds": config.seeds,
        },
        verdict=decide(powers["AdaGrad"], powers["RMSProp"], ratio),
        because=f"AdaGrad's steps fall as t^{powers['AdaGrad']:.3f} (claimed -1/2), "
        f"RMSProp's as t^{powers['RMSProp']:.3f} (claimed 0); when it comes, the rare "
        f"feature's step is {ratio:.1f} times the frequent one's",
        figures={
            "size_of_steps": curves(
                smooth,
                x="step",
                y="mean size of an update",
                at=block * np.arange(1, len(smooth["AdaGrad"]) + 1),
                log="xy",
            )
        },
    )
