"""Descent finds the lowest point of a convex function from everywhere, of another from where slopes happen to lead.

Claim X68. Plain descent from many random starts on convex functions, a bowl of condition 100 and logistic regression,
and on others: a tilted double well, a mesh of wells (Rastrigin's function of two variables), and a 2-2-1 network on
exclusive or. Success is to end within a hundredth of the lowest value; for the logistic regression, which has no
formula, that of Newton's method.

Refuted if a start on a convex function fails, or none does on any one of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import losses, models, optim
from purenets.optim import problems


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    starts: int = 400
    steps: int = 4000
    reach: float = 3.0
    """Starts are uniform up to here on either side of zero."""


@dataclass(frozen=True)
class Ground:
    """A function to descend on, its parameters, the rate and its lowest value."""

    fn: Callable[[Any], jax.Array]
    like: Any
    rate: float
    lowest: float


CONVEX = ("bowl", "logistic regression")


def newton(problem: problems.Problem, steps: int = 20) -> float:
    """The lowest value of a convex function by Newton's method."""
    flat, unflatten = jax.flatten_util.ravel_pytree(problem.start)
    fn = lambda v: problem.fn(unflatten(v))
    for _ in range(steps):
        flat = flat - jnp.linalg.solve(jax.hessian(fn)(flat), jax.grad(fn)(flat))
    return float(fn(flat))


def grounds() -> dict[str, Ground]:
    """By name."""
    bowl, logistic = problems.quadratic(10, 100.0), problems.logistic_regression()
    net = models.mlp((2, 2, 1), activation=jnp.tanh)
    corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    labels = jnp.array([0.0, 1.0, 1.0, 0.0])
    xor = lambda p: jnp.mean(losses.sigmoid_binary_cross_entropy(net.apply(p, {}, corners)[0][:, 0], labels))
    well = lambda x: x[0] ** 4 / 4 - x[0] ** 2 / 2 + 0.1 * x[0]
    mesh = lambda x: jnp.sum(x**2 / 10 + 1 - jnp.cos(2 * jnp.pi * x))
    line = np.linspace(-2, 2, 100_001)
    return {
        "bowl": Ground(bowl.fn, bowl.start, 0.015, float(bowl.value or 0.0)),
        "logistic regression": Ground(logistic.fn, logistic.start, 0.2, newton(logistic)),
        "tilted double well": Ground(well, jnp.zeros(1), 0.05, float(well(line[None]).min())),
        "mesh of wells": Ground(mesh, jnp.zeros(2), 0.01, 0.0),
        "exclusive or": Ground(xor, net.init(jax.random.key(0))[0], 0.5, 0.0),
    }


def excess(ground: Ground, config: Config) -> np.ndarray:
    """How far above the lowest value each start ends, ``[starts]``."""
    optimizer = optim.sgd(ground.rate)

    def run(key: Any) -> jax.Array:
        leaves, form = jax.tree.flatten(ground.like)
        keys = jax.random.split(key, len(leaves))
        reach = config.reach
        drawn = [
            jax.random.uniform(k, x.shape, minval=-reach, maxval=reach)
            for k, x in zip(keys, leaves, strict=True)
        ]
        params = jax.tree.unflatten(form, drawn)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            update, state = optimizer.update(jax.grad(ground.fn)(params), state, params)
            return (optim.apply_updates(params, update), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=config.steps)
        return ground.fn(params) - ground.lowest

    return np.asarray(pn.sweep(run, seeds=config.starts).results)


def decide(success: dict[str, float]) -> Verdict:
    """By the shares of starts that end at the lowest value."""
    return verdict(all(share == 1 if name in CONVEX else share < 1 for name, share in success.items()))


def run(config: Config) -> Report:
    """All grounds."""
    found = {name: excess(ground, config) for name, ground in grounds().items()}
    success = {name: float(np.mean(each <= 0.01)) for name, each in found.items()}
    error = {name: float(np.sqrt(share * (1 - share) / config.starts)) for name, share in success.items()}
    figure, panel = axes("value above the lowest", "share of starts that end below")
    for name, each in found.items():
        panel.plot(np.sort(np.maximum(each, 1e-7)), np.arange(1, len(each) + 1) / len(each), label=name)
    panel.axvline(0.01, color="0.6", linewidth=1)
    panel.set_xscale("log")
    panel.legend(frameon=False)
    return Report(
        numbers={f"share that succeeds, {name}": share for name, share in success.items()}
        | {f"its standard error, {name}": value for name, value in error.items()}
        | {f"worst end above the lowest value, {name}": float(each.max()) for name, each in found.items()},
        verdict=decide(success),
        because=f"of {config.starts} starts succeed: "
        + ", ".join(f"{name} {s:.1%}" for name, s in success.items()),
        figures={"where_starts_end": figure},
        tables={
            "success": Table(
                ["function", "convex", "share of starts"],
                [
                    [name, "yes" if name in CONVEX else "no", f"{share:.3f}"]
                    for name, share in success.items()
                ],
            )
        },
    )
