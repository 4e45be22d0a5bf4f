"""Adam walks to the worst point of a convex problem, AMSGrad to the best (Reddi, Kale & Kumar 2018, section 3).

Claim X25. On [-1, 1] the slope is ``C = 3`` at every third step and -1 at the others, so that moving left is
right: the mean slope is positive and the best point is -1. Adam with ``b1 = 0`` and a short memory of
squares, ``b2 = 0.1``, divides the rare large slope by its own size and drifts to +1. AMSGrad remembers the
largest square ever and does not.

Refuted if Adam ends nearer to -1 than to +1, or AMSGrad farther than 0.05 from -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.figures import axes
from experiments.report import Report, Verdict, verdict
from purenets import optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    large: float = 3.0
    learning_rate: float = 1e-3
    b2: float = 0.1
    steps: int = 30_000


def path(optimizer: Any, config: Config, start: jax.Array) -> jax.Array:
    """The iterates from one start, kept in [-1, 1]: ``[steps]``."""

    def step(carry: Any, t: jax.Array) -> Any:
        x, state = carry
        slope = jnp.where(t % 3 == 0, config.large, -1.0)
        update, state = optimizer.update(slope, state, x)
        x = jnp.clip(x + update, -1.0, 1.0)
        return (x, state), x

    return jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(config.steps))[1]


def decide(adam: float, amsgrad: float, steps: int) -> Verdict:
    """By where each ends at worst; too few steps to cross the interval decide nothing."""
    return verdict(adam > 0 and amsgrad < -0.95, enough=steps >= 20_000)


def run(config: Config) -> Report:
    """Both from five starts."""
    starts = jnp.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    common = {"b1": 0.0, "b2": config.b2}
    optimizers = {
        "Adam": optim.adam(config.learning_rate, **common),
        "AMSGrad": optim.amsgrad(config.learning_rate, **common),
    }
    paths = {
        name: np.asarray(jax.jit(jax.vmap(lambda x, o=o: path(o, config, x)))(starts))
        for name, o in optimizers.items()
    }
    ends = {name: found[:, -1] for name, found in paths.items()}
    worst_adam, worst_amsgrad = float(ends["Adam"].min()), float(ends["AMSGrad"].max())
    figure, panel = axes("step", "x (best -1, worst +1)")
    for (name, found), colour in zip(paths.items(), ("C0", "C4"), strict=True):
        for i, line in enumerate(found):
            panel.plot(
                np.arange(0, config.steps, 50), line[::50], color=colour, label=name if i == 0 else None
            )
    panel.legend(frameon=False)
    return Report(
        numbers={
            "Adam ends at (mean over starts)": float(ends["Adam"].mean()),
            "AMSGrad ends at (mean over starts)": float(ends["AMSGrad"].mean()),
            "Adam, nearest to the best": worst_adam,
            "AMSGrad, farthest from the best": worst_amsgrad,
            "steps": config.steps,
        },
        verdict=decide(worst_adam, worst_amsgrad, config.steps),
        because=f"from five starts Adam ends at {worst_adam:+.4f} or right of it, AMSGrad at "
        f"{worst_amsgrad:+.4f} or left of it; the best point is -1, the worst +1",
        figures={"paths": figure},
    )
