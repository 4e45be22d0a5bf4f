"""Where there are many wells, several starts and a rate that goes from high to low find better ones than one low rate.

Claim X58. A function of one variable with a broad bowl and narrow wells on it, the deepest in the middle. Descent at a
low rate ends in the well that it starts in. Restarts take the best of several starts. A high rate is too high for the
narrow walls, so it strays, drawn by the bowl, until a decay lets it settle; warm restarts repeat that
(Loshchilov & Hutter 2017). Success is to end in the deepest well. All have the same number of steps in total.

Refuted if a share of successes with restarts or with a falling rate is not above that of one low rate by two standard
errors; or if the best of n starts is not as successful as 1 - (1 - p)^n says, p being that of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import optim

REACH = 4.0


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    runs: int = 1000
    steps: int = 600
    starts: int = 6
    low: float = 0.01
    high: float = 0.3


def wells(x: ArrayLike) -> jax.Array:
    """``x^2 / 4 + 1 - cos(2 pi x)``: a well near each whole number up to 3, the deepest at 0 (Rastrigin's in one)."""
    return jnp.square(x) / 4 + 1 - jnp.cos(2 * jnp.pi * jnp.asarray(x))


def ends(schedule: Callable[[Any], Any] | float, steps: int, config: Config) -> np.ndarray:
    """Where descent ends from ``starts`` random points for each run, ``[runs, starts]``."""
    optimizer = optim.sgd(schedule)

    def run(key: Any) -> jax.Array:
        begin = jax.random.uniform(key, (config.starts,), minval=-REACH, maxval=REACH)

        def one(x: jax.Array) -> jax.Array:
            def step(carry: Any, _: None) -> Any:
                x, state = carry
                update, state = optimizer.update(jax.grad(wells)(x), state, x)
                return (x + update, state), None

            return jax.lax.scan(step, (x, optimizer.init(x)), None, length=steps)[0][0]

        return jax.vmap(one)(begin)

    return np.asarray(pn.sweep(run, seeds=config.runs).results)


def decide(success: dict[str, float], runs: int, starts: int) -> Verdict:
    """By the shares of runs that end in the deepest well."""
    one, many = success["one low rate"], success["restarts"]
    error = lambda *shares: np.sqrt(sum(s * (1 - s) for s in shares) / runs)
    better = all(
        success[name] - one > 2 * error(success[name], one)
        for name in ("restarts", "high to low", "warm restarts")
    )
    expected = 1 - (1 - one) ** starts
    return verdict(
        bool(better and abs(many - expected) <= 4 * error(expected, one * starts / (starts + 1)) + 0.02)
    )


def run(config: Config) -> Report:
    """All four ways with the same number of steps."""
    part = config.steps // config.starts
    cycle = {"init_value": config.high, "peak_value": config.high, "warmup_steps": 0, "end_value": 0.0}
    cycles = [cycle | {"decay_steps": config.steps // 3}] * 3
    ways = {
        "one low rate": ends(config.low, config.steps, config)[:, 0],
        "restarts": _best(ends(config.low, part, config)),
        "one high rate": ends(config.high, config.steps, config)[:, 0],
        "high to low": ends(optim.cosine_decay_schedule(config.high, config.steps), config.steps, config)[
            :, 0
        ],
        "warm restarts": ends(optim.sgdr_schedule(cycles), config.steps, config)[:, 0],
    }
    success = {name: float(np.mean(np.abs(end) < 0.25)) for name, end in ways.items()}
    value = {name: float(np.mean(wells(end))) for name, end in ways.items()}
    expected = 1 - (1 - success["one low rate"]) ** config.starts
    figure, panels = axes("x", "", columns=2, width=9)
    line = np.linspace(-REACH, REACH, 800)
    panels[0, 0].plot(line, wells(line))
    panels[0, 0].set_ylabel("value")
    for name, end in ways.items():
        panels[0, 1].plot(np.sort(end), np.linspace(0, 1, len(end)), label=name)
    panels[0, 1].set(ylabel="share of runs that end below", xlim=(-REACH, REACH))
    panels[0, 1].legend(frameon=False, fontsize=7)
    return Report(
        numbers={f"share in the deepest well, {name}": share for name, share in success.items()}
        | {f"value at the end, {name}: mean": mean for name, mean in value.items()}
        | {f"share expected of the best of {config.starts}": expected},
        verdict=decide(success, config.runs, config.starts),
        because="share of runs that end in the deepest well: "
        + ", ".join(f"{name} {share:.1%}" for name, share in success.items())
        + f"; {config.starts} starts promise {expected:.1%}",
        figures={"wells_and_where_runs_end": figure},
        tables={
            "ways": Table(
                ["way", "share in the deepest well", "mean value"],
                [[name, f"{success[name]:.3f}", f"{value[name]:.3f}"] for name in ways],
            )
        },
    )


def _best(end: np.ndarray) -> np.ndarray:
    """Of each run's ends ``[runs, starts]`` the one of the lowest value."""
    return end[np.arange(len(end)), np.asarray(wells(end)).argmin(1)]
