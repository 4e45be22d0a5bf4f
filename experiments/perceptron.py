"""The perceptron learns whatever a line separates, within a known number of updates; on XOR it goes in circles.

Claim X55 (Rosenblatt 1958; Novikoff 1962; Minsky & Papert 1969). Many random sets of points, each separated by some
distance from a line, are learned at once, and the updates counted beside the bound ``(R / margin)^2``, the margin
being the best one, that of a support vector machine. On XOR the rule runs through the four points in many orders and
from many starts. Its weights stay whole numbers, so weights that come back prove that it never ends.

Refuted by a set that takes more updates than its bound, by a pass over XOR without a mistake, or by a run over XOR
whose weights grow instead of coming back. Sets that need more epochs than were given leave it open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import classic

SIGNS = jnp.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), jnp.array([-1.0, 1, 1, -1])


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    gaps: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    """How far the points are kept from the line."""
    points: int = 60
    features: int = 2
    sets: int = 64
    """Random sets for each gap."""
    epochs: int = 2000
    runs: int = 64
    """Over XOR: orders and starts."""
    passes: int = 40
    seed: int = 0


def separated_set(key: jax.Array, gap: jax.Array, config: Config) -> tuple[jax.Array, jax.Array]:
    """Normal points moved away from a random line until none is nearer than the gap, and their side of it."""
    first, second, third = jax.random.split(key, 3)
    direction = jax.random.normal(first, (config.features,))
    direction /= jnp.linalg.norm(direction)
    x = jax.random.normal(second, (config.points, config.features))
    distance = x @ direction + 0.5 * jax.random.normal(third, ())
    y = jnp.where(distance >= 0, 1.0, -1.0)
    return x + (gap * y)[:, None] * direction, y


def learn(key: jax.Array, gap: jax.Array, config: Config) -> dict[str, jax.Array]:
    """The updates that a random set takes, and its bound by the widest margin found."""
    x, y = separated_set(key, gap, config)
    fit = classic.perceptron.fit_perceptron(x, y, epochs=config.epochs)
    # Hard margins: a cost that no example reaches. The bias in its kernel is the coordinate of Novikoff's proof.
    machine = classic.svm.fit_svm(x, y, cost=1e6, sweeps=500)
    widest = {"kernel": machine.weights @ x, "bias": machine.weights.sum()}
    bounds = [classic.perceptron.mistake_bound(x, y, params) for params in (widest, fit.params)]
    return {
        "updates": fit.mistakes.sum(),
        "bound": jnp.minimum(*bounds),
        "separated": fit.separated,
    }


def circle(key: jax.Array, passes: int) -> tuple[jax.Array, jax.Array]:
    """Weights ``[passes, 3]`` and mistakes ``[passes]`` over XOR, in one order from whole numbers drawn at random."""
    order, start = jax.random.split(key)
    places = jax.random.permutation(order, 4)
    w = 2.0 * jax.random.randint(start, (3,), -2, 3)

    def once(params: Any, _: None) -> Any:
        x, y = SIGNS
        fit = classic.perceptron.fit_perceptron(x[places], y[places], epochs=1, params=params)
        now = fit.params
        return now, (jnp.append(now["kernel"], now["bias"]), fit.mistakes[0])

    return jax.lax.scan(once, {"kernel": w[:2], "bias": w[2]}, None, length=passes)[1]


def period(states: np.ndarray) -> int:
    """After how many passes the last weights had come before, 0 if they never had."""
    same = np.flatnonzero((states[:-1] == states[-1]).all(1))
    return int(len(states) - 1 - same[-1]) if len(same) else 0


def decide(
    updates: np.ndarray, bounds: np.ndarray, separated: np.ndarray, periods: list[int], clean: int
) -> Verdict:
    """By the updates of each set beside its bound, and by the runs over XOR: periods, and passes without a mistake."""
    broken = bool(np.any(updates > bounds)) or clean > 0 or 0 in periods
    return verdict(not broken, enough=broken or bool(np.all(separated)))


def run(config: Config) -> Report:
    """All sets, then all runs over XOR."""
    keys = jax.random.split(jax.random.key(config.seed), len(config.gaps) * config.sets + config.runs)
    gaps = np.repeat(np.array(config.gaps, np.float32), config.sets)
    each = jax.jit(jax.vmap(lambda key, gap: learn(key, gap, config)))
    found = {name: np.asarray(values) for name, values in each(keys[: len(gaps)], gaps).items()}
    states, mistakes = jax.jit(jax.vmap(lambda key: circle(key, config.passes)))(keys[len(gaps) :])
    states, mistakes = np.asarray(states), np.asarray(mistakes)
    periods = [period(run) for run in states]
    clean = int(np.sum(mistakes == 0))
    share = found["updates"] / found["bound"]
    rows = []
    for i, gap in enumerate(config.gaps):
        own = slice(i * config.sets, (i + 1) * config.sets)
        updates, bound = found["updates"][own], found["bound"][own]
        middle = (int(np.median(updates)), int(updates.max()), int(np.median(bound)))
        rows.append([gap, f"{found['separated'][own].sum()} of {config.sets}", *middle])
    figure, panel = axes("bound on the updates, (R / margin)²", "updates to convergence")
    learned = found["separated"] & (found["updates"] > 0)
    panel.loglog(
        found["bound"][learned], found["updates"][learned], "o", ms=3, alpha=0.5, label="a random set"
    )
    ends = np.array([found["bound"].min(), found["bound"].max()])
    panel.loglog(ends, ends, "k-", lw=1, label="the bound")
    panel.legend(frameon=False)
    cycle, panel = axes("pass over the four points of XOR", "mistakes in the pass")
    for i, line in enumerate(mistakes[:6]):
        panel.plot(np.arange(1, len(line) + 1), line + 0.04 * i, label=f"order {i + 1}")
    panel.set_ylim(0, 4.5)
    return Report(
        numbers={
            "sets": len(gaps),
            "sets separated": int(found["separated"].sum()),
            "most updates": int(found["updates"].max()),
            "largest share of the bound": float(share.max()),
            "runs over XOR": config.runs,
            "runs over XOR that come back to their weights": sum(p > 0 for p in periods),
            "longest cycle over XOR (passes)": max(periods),
            "largest weight over XOR": float(np.abs(states).max()),
            "passes over XOR without a mistake": clean,
        },
        verdict=decide(found["updates"], found["bound"], found["separated"], periods, clean),
        because=f"{found['separated'].sum()} of {len(gaps)} sets are separated, after {share.max():.0%} of the bound "
        f"at most; over XOR {sum(p > 0 for p in periods)} of {config.runs} runs come back to weights they had, "
        f"after {max(periods)} passes at the latest, and {clean} passes are without a mistake",
        figures={"updates_by_bound": figure, "mistakes_on_xor": cycle},
        tables={
            "Updates by gap": Table(
                ["gap", "separated", "updates (median)", "updates (most)", "bound (median)"], rows
            )
        },
        metrics=[
            {"gap": float(gap), **{name: float(values[i]) for name, values in found.items()}}
            for i, gap in enumerate(gaps)
        ],
    )
