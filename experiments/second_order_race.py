"""Methods that learn the curvature reach the minimum without a learning rate, in far fewer evaluations than
descent.

Claim X40: conjugate gradients, BFGS and L-BFGS against steepest descent with the same line search, on
Rosenbrock's valley in two and ten variables, on Beale's function and on a logistic regression. SciPy's own
methods, given the same function and slopes in float64, are the oracle for how many evaluations are
reasonable.

Refuted if one of the three fails to reach a minimum that SciPy's twin reaches, needs over three times its
evaluations there, or if steepest descent needs fewer than any of them on the valley.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import optimize

from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets.optim import problems
from purenets.optim.second_order import (
    bfgs,
    limited_memory_bfgs,
    minimize,
    nonlinear_cg,
    steepest_descent,
)


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    tolerance: float = 1e-5
    most: int = 5000


METHODS = {
    "steepest descent": (steepest_descent, None),
    "conjugate gradients": (nonlinear_cg, "CG"),
    "BFGS": (bfgs, "BFGS"),
    "L-BFGS": (limited_memory_bfgs, "L-BFGS-B"),
}


def race(problem: Any, config: Config) -> dict[str, dict[str, float]]:
    """For each method its evaluations and slope at the end, and SciPy's."""
    found = {}
    flat, back = ravel_pytree(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), problem.start))
    pair = jax.jit(jax.value_and_grad(lambda x: problem.fn(back(x))))
    for name, (method, twin) in METHODS.items():
        ours = minimize(
            problem.fn, back(flat), method(), tolerance=config.tolerance, max_iterations=config.most
        )
        row = {
            "evaluations": int(ours.evaluations),
            "slope": float(ours.gradient_norm),
            "value": float(ours.value),
        }
        if twin:
            options = {"gtol": config.tolerance, "maxiter": config.most} | (
                {"ftol": 0.0} if twin == "L-BFGS-B" else {}
            )
            theirs = optimize.minimize(
                lambda x: tuple(np.asarray(part, np.float64) for part in pair(x)),
                np.asarray(flat),
                jac=True,
                method=twin,
                options=options,
            )
            row |= {"SciPy": int(theirs.nfev), "SciPy slope": float(np.abs(theirs.jac).max())}
        found[name] = row
    return found


def decide(races: dict[str, dict[str, dict[str, float]]], tolerance: float) -> Verdict:
    """By who arrives and after how many evaluations."""
    fine = True
    for rows in races.values():
        for row in rows.values():
            if "SciPy" in row and row["SciPy slope"] <= 10 * tolerance:
                fine &= row["slope"] <= tolerance and row["evaluations"] <= 3 * row["SciPy"]
    valley = races["rosenbrock, 2"]
    slowest = max(row["evaluations"] for name, row in valley.items() if name != "steepest descent")
    return verdict(fine and valley["steepest descent"]["evaluations"] > slowest)


def run(config: Config) -> Report:
    """All methods on all problems, in float64."""
    with jax.enable_x64(True):
        given = {
            "rosenbrock, 2": problems.rosenbrock(),
            "rosenbrock, 10": problems.rosenbrock(10),
            "beale": problems.beale(),
            "logistic regression": problems.logistic_regression(),
        }
        races = {name: race(problem, config) for name, problem in given.items()}
    figure, panel = axes("", "evaluations of value and slope", width=7.5)
    places = np.arange(len(races))
    for i, name in enumerate(METHODS):
        panel.bar(places + 0.2 * i, [rows[name]["evaluations"] for rows in races.values()], 0.18, label=name)
    panel.set_yscale("log")
    panel.set_xticks(places + 0.3, list(races))
    panel.legend(frameon=False)
    rows = [
        [problem, name, row["evaluations"], f"{row['slope']:.1e}", row.get("SciPy", "")]
        for problem, methods in races.items()
        for name, row in methods.items()
    ]
    valley = races["rosenbrock, 2"]
    said = ", ".join(
        f"{name} {row['evaluations']} (SciPy {row.get('SciPy', 'has none')})" for name, row in valley.items()
    )
    return Report(
        numbers={
            f"{name}: {problem}": row["evaluations"]
            for problem, m in races.items()
            for name, row in m.items()
        },
        verdict=decide(races, config.tolerance),
        because=f"evaluations on Rosenbrock's valley: {said}",
        figures={"evaluations": figure},
        tables={
            "races": Table(["problem", "method", "evaluations", "largest slope at the end", "SciPy"], rows)
        },
    )
