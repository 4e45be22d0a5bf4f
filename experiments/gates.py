"""Threshold units set by hand compute every Boolean function in two layers; one unit alone computes few of them.

Catalogue rows M01, M06, M07 and M09 (McCulloch & Pitts 1943). Every truth table of up to three inputs, and a sample of
those of four, is compiled into a network and compared row by row. Then every table is given to a single unit, which
learns by the perceptron's rule: it should be able to learn 4, 14, 104 and 1,882 of them (Muroga 1971).

Refuted by a compiled network that is wrong in one row, by a smooth gate that is wrong by more than 5e-5, or by other
numbers of tables that a single unit learns.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes, boundary
from experiments.report import Report, Table, Verdict, verdict
from purenets import classic
from purenets.classic.threshold import compile_truth_table, logistic_gate, truth_table, xnor

THRESHOLD_FUNCTIONS = {1: 4, 2: 14, 3: 104, 4: 1882}
TRUE = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "nor": lambda a, b: not (a or b),
    "xnor": lambda a, b: a == b,
}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    inputs: int = 4
    """The most inputs of a table that a single unit is given, 4 at most."""
    compiled: int = 300
    """Tables of each number of inputs that are compiled; all of them where there are fewer."""
    epochs: int = 200
    seed: int = 0


def tables(n: int, most: int, seed: int) -> np.ndarray:
    """Truth tables of n inputs, ``[count, 2^n]``: all of them, or so many drawn at random."""
    count = 2**2**n
    chosen = np.arange(count)
    if count > most:
        chosen = np.random.default_rng(seed).choice(count, most, replace=False)
    return (chosen[:, None] >> np.arange(2**n)) & 1


def wrong_rows(outputs: np.ndarray) -> int:
    """In how many rows the compiled network differs from its table."""
    model = compile_truth_table(outputs.tolist())
    params, _ = model.init(jax.random.key(0))
    n = len(outputs).bit_length() - 1
    return int(np.sum(np.asarray(model.apply(params, {}, truth_table(n))[0])[:, 0] != outputs))


def learnable(n: int, epochs: int) -> int:
    """How many of all tables of n inputs a single unit learns."""
    x = jnp.asarray(2 * truth_table(n) - 1)
    labels = jnp.asarray(2.0 * tables(n, 2**2**n, 0) - 1)
    fit = jax.jit(jax.vmap(lambda y: classic.perceptron.fit_perceptron(x, y, epochs=epochs).separated))
    return int(fit(labels).sum())


def decide(wrong: int, error: float, learned: dict[int, int]) -> Verdict:
    """By the rows that are wrong, the worst error of a smooth gate, and what one unit learns."""
    known = all(learned[n] == THRESHOLD_FUNCTIONS[n] for n in learned)
    return verdict(wrong == 0 and error <= 5e-5 and known)


def run(config: Config) -> Report:
    """Compile, learn, and draw the gates."""
    rows, learned = [], {}
    for n in range(1, config.inputs + 1):
        chosen = tables(n, config.compiled, config.seed)
        wrong = sum(wrong_rows(outputs) for outputs in chosen)
        learned[n] = learnable(n, config.epochs)
        rows.append([n, 2**2**n, len(chosen), wrong, int(chosen.sum(1).max()) + 1, learned[n]])
    gates = {name: logistic_gate(name) for name in ("and", "or", "nor")} | {"xnor": xnor()}
    figure, panels = axes("x1", "x2", columns=4, width=12, height=3.4)
    points, error = truth_table(2), 0.0
    for panel, (name, gate) in zip(panels[0], gates.items(), strict=True):
        apply, (params, _) = pn.stateless(gate), gate.init(jax.random.key(0))
        found = np.asarray(apply(params, points))[:, 0]
        labels = np.array([float(TRUE[name](a, b)) for a, b in itertools.product((0, 1), repeat=2)])
        error = max(error, float(np.abs(found - labels).max()))
        predict = jax.jit(lambda xs, apply=apply, params=params: apply(params, xs)[:, 0])
        boundary(panel, predict, points, labels, title=name.upper())
    wrong = sum(row[3] for row in rows)
    shares, panel = axes("inputs", "share of all truth tables")
    panel.bar([str(n) for n in learned], [learned[n] / 2**2**n for n in learned])
    panel.set_ylim(0, 1)
    return Report(
        numbers={
            "tables compiled": sum(row[2] for row in rows),
            "rows wrong": wrong,
            "worst error of a smooth gate": error,
            **{f"tables of {n} inputs one unit learns": count for n, count in learned.items()},
        },
        verdict=decide(wrong, error, learned),
        because=f"{sum(row[2] for row in rows)} compiled networks are wrong in {wrong} rows and the smooth gates by "
        f"{error:.1e} at most; one unit learns {', '.join(map(str, learned.values()))} of the tables of 1 to "
        f"{config.inputs} inputs, and {', '.join(str(THRESHOLD_FUNCTIONS[n]) for n in learned)} are known",
        figures={"decision_regions": figure, "what_one_unit_learns": shares},
        tables={
            "Truth tables": Table(
                ["inputs", "tables", "compiled", "rows wrong", "most units", "one unit learns"], rows
            )
        },
    )
