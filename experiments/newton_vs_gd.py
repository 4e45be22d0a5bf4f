"""Newton's method needs fewer steps than gradient descent, and each of its steps costs more.

Claim X39. Gradient descent has the best constant rate for each bowl, ``2 / (1 + condition)``, which a user
does not know; its steps grow with the condition number, Newton's are one for every bowl. On Rosenbrock's
valley gradient descent searches along its direction. The cost of a step is counted by the compiler, in
floating-point operations, as the number of variables grows.

Refuted if Newton takes more than two steps for a bowl, gradient descent not at least ten times as many for
the worst one, or if Newton's step is not dearer, and increasingly, with the number of variables.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.figures import curves
from experiments.report import Report, Verdict, verdict
from purenets.optim import problems
from purenets.optim.second_order import minimize, newton, steepest_descent


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    conditions: tuple[float, ...] = (2.0, 10.0, 100.0, 1000.0)
    sizes: tuple[int, ...] = (4, 16, 64, 256)
    tolerance: float = 1e-3
    most: int = 20_000


def descent_steps(condition: float, config: Config) -> int:
    """Steps of gradient descent with the best constant rate, until no slope is above the tolerance."""
    problem = problems.quadratic(10, condition)
    rate = 2 / (1 + condition)
    slope = jax.grad(problem.fn)

    def going(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, count = carry
        return (jnp.max(jnp.abs(slope({"x": x})["x"])) > config.tolerance) & (count < config.most)

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, count = carry
        return x - rate * slope({"x": x})["x"], count + 1

    return int(jax.jit(lambda x: jax.lax.while_loop(going, step, (x, 0)))(problem.start["x"])[1])


def step_cost(size: int, method: str) -> float:
    """Floating-point operations of a step on a chain of ``size`` variables; a dense solve counts as 2/3 n^3."""
    problem = problems.rosenbrock(size)
    counted = jax.grad(problem.fn) if method == "descent" else jax.hessian(problem.fn)
    flops = jax.jit(counted).lower(problem.start).compile().cost_analysis()["flops"]
    return float(flops) + (2 / 3 * size**3 if method == "newton" else 0.0)


def decide(newton_steps: list[int], descent: list[int], ratios: list[float]) -> Verdict:
    """By the steps for each bowl, and the cost of a Newton step over one of descent for each size."""
    dearer = ratios[0] > 1 and all(a < b for a, b in itertools.pairwise(ratios))
    return verdict(max(newton_steps) <= 2 and descent[-1] >= 10 * max(newton_steps) and dearer)


def run(config: Config) -> Report:
    """Bowls of growing condition, Rosenbrock's valley, and the cost of a step."""
    descent = [descent_steps(c, config) for c in config.conditions]
    bowls = [problems.quadratic(10, c) for c in config.conditions]
    by_newton = [int(minimize(p.fn, p.start, newton(), tolerance=config.tolerance).iterations) for p in bowls]
    valley = problems.rosenbrock()
    steepest = minimize(
        valley.fn, valley.start, steepest_descent(), tolerance=config.tolerance, max_iterations=config.most
    )
    curved = minimize(valley.fn, valley.start, newton(), tolerance=config.tolerance)
    ratios = [step_cost(n, "newton") / step_cost(n, "descent") for n in config.sizes]
    return Report(
        numbers={
            "steps of descent by condition": descent,
            "steps of Newton by condition": by_newton,
            "Rosenbrock, steps of steepest descent": int(steepest.iterations),
            "Rosenbrock, steps of Newton": int(curved.iterations),
            "cost of a Newton step over one of descent": [round(r, 1) for r in ratios],
            "variables": list(config.sizes),
        },
        verdict=decide(by_newton, descent, ratios),
        because=f"for bowls of condition {', '.join(f'{c:g}' for c in config.conditions)} Newton takes {by_newton} "
        f"steps and gradient descent {descent}; a Newton step costs {ratios[0]:.0f} to {ratios[-1]:.0f} times "
        f"as much for {config.sizes[0]} to {config.sizes[-1]} variables",
        figures={
            "steps": curves(
                {"gradient descent": descent, "Newton": by_newton},
                x="condition",
                y="steps",
                at=config.conditions,
                log="xy",
            ),
            "cost_of_a_step": curves(
                {"Newton over descent": np.array(ratios)},
                x="variables",
                y="operations, ratio",
                at=config.sizes,
                log="xy",
            ),
        },
    )
