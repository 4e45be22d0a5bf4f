"""Width N and depth L bring a ReLU network within (NL)^-2 of a curve, with N^2 L^2 straight pieces.

Claim X46 (Shen, Yang & Zhang 2020, theorem 1.1), in one dimension: width ``12 (N + 1)`` and depth ``12 L + 14`` come
within ``19 (NL)^-2`` of any curve of slope 1 at most. The theorem says that such networks exist; here they are written
down. Of the ``K = N^2 L^2`` cells of [0, 1] the network finds the one that x is in, looks up one value and one string
of L bits for every L cells, and walks from the value by ``1 / K`` up for each bit of 1 and down for each of 0::

    a, b        two staircases of N steps, in one hidden layer each: which of N^2 parts
    m, l        two of L steps, a step in each hidden layer: which of the L^2 cells of the part
    y, theta    two tables over (a, b, m), L times two hidden layers: value and bits
    count       the sum of the first l bits, by bit extraction; then y + (2 count - l) / K

A step takes a sliver of the next cell to rise. The theorem leaves such slivers out, and so do the errors here.

Refuted by a network larger than the theorem's or farther from its curve, by errors that do not fall as ``(NL)^-2``
(an exponent within 0.15), or by fewer than ``N^2 L^2`` pieces where they are counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import theory
from purenets.paths import flatten

RISE = 0.1
"""The share of a cell that a step takes to rise."""

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    sizes: tuple[tuple[int, int], ...] = ((2, 2), (4, 2), (2, 4), (4, 4), (8, 4), (4, 8), (8, 8), (16, 4))
    """Pairs of N and L."""
    curves: int = 4
    kinks: int = 5
    points: int = 20_000
    counted_up_to: int = 256
    """The most cells of a network whose pieces are counted."""


class Stack:
    """Hidden layers, one after another. What they compute is named by rows over ``[units of the last one, 1]``."""

    def __init__(self) -> None:
        self.layers: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, wanted: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """A layer of ReLUs of these rows; returns the rows of its units, and that of the number 1."""
        matrix = np.stack(wanted, 1)
        self.layers.append((matrix[:-1], matrix[-1]))
        *units, one = np.eye(len(wanted) + 1)
        return units, one

    def network(self, outputs: Sequence[np.ndarray]) -> pn.Layer:
        """The layers, and these rows as outputs."""
        parts: dict[str, pn.Layer | Callable[..., jax.Array]] = {}
        for i, (kernel, bias) in enumerate(self.layers, 1):
            parts |= {f"layer_{i}": theory.given_dense(kernel, bias), f"relu_{i}": jax.nn.relu}
        last = np.stack(outputs, 1)
        return pn.serial(**parts, out=theory.given_dense(last[:-1], last[-1]))


def rises(z: np.ndarray, edges: Iterable[float], one: np.ndarray, rise: float) -> list[np.ndarray]:
    """Pairs of rows whose ReLUs differ by 0 well before an edge and by 1 from it on."""
    return [(z - (edge - early) * one) / rise for edge in edges for early in (rise, 0.0)]


def risen(units: list[np.ndarray], one: np.ndarray) -> np.ndarray:
    """How many of the edges are passed."""
    return sum((up - down for up, down in zip(units[::2], units[1::2], strict=True)), 0 * one)


def indices(stack: Stack, n: int, length: int) -> list[np.ndarray]:
    """The rows of a, b, m and l for the input, and that of 1."""
    x, one = np.eye(2)
    cells = (n * length) ** 2
    rise = RISE / cells
    (rest, *steps), one = stack.add([x, *rises(x, np.arange(1, n) / n, one, rise)])
    a = risen(steps, one)
    (rest, a, *steps), one = stack.add(
        [rest - a / n, a, *rises(rest - a / n, np.arange(1, n) / n**2, one, rise)]
    )
    b = risen(steps, one)
    rest, known = rest - b / n**2, [a, b]
    for parts in (n**2 * length, cells):
        index = 0 * one
        for edge in np.arange(1, length) / parts:
            (rest, *known, index, up, down), one = stack.add(
                [rest, *known, index, *rises(rest, [edge], one, rise)]
            )
            index = index + up - down
        rest, known = rest - index / parts, [*known, index]
    return [*known, one]


def look_up(stack: Stack, tables: Sequence[np.ndarray], rows: list[np.ndarray]) -> list[np.ndarray]:
    """Add the entries ``[a, b, m]`` of tables of numbers in [0, 1]; returns l, the entries, and 1."""
    *known, one = rows
    n, _, length = tables[0].shape
    sums = [0 * one for _ in tables]
    for k in range(length):
        a, b, m, _ = known
        units, one = stack.add(
            [
                *known,
                *sums,
                *[a - i * one for i in range(1, n - 1)],
                *[b - i * one for i in range(1, n)],
                *[m - i * one for i in (k - 1, k, k + 1)],
            ]
        )
        known, sums, bends = units[:4], units[4 : 4 + len(tables)], units[4 + len(tables) :]
        over_a = [known[0], *bends[: max(n - 2, 0)]]  # relu(a - i)
        over_b = [known[1] + one, known[1], *bends[max(n - 2, 0) : -3], 0 * one]  # relu(b - i) from i = -1 on
        here = bends[-3] - 2 * bends[-2] + bends[-1]  # 1 where m is k
        wanted = []
        for table, j in itertools.product(tables, range(n)):
            entries = table[:, j, k]
            slopes = np.diff(np.diff(entries), prepend=0.0)
            along = sum((s * row for s, row in zip(slopes, over_a, strict=False)), entries[0] * one)
            there = over_b[j] - 2 * over_b[j + 1] + over_b[j + 2]  # 1 where b is j
            wanted.append(along + there + here - 2 * one)
        units, one = stack.add([*known, *sums, *wanted])
        known, sums, found = units[:4], units[4 : 4 + len(tables)], units[4 + len(tables) :]
        sums = [total + sum(found[i * n : (i + 1) * n]) for i, total in enumerate(sums)]
    return [known[3], *sums, one]


def walk(curve: Curve, n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables of the values and of the fractions whose bits say up or down, ``[n, n, length]`` each."""
    cells = (n * length) ** 2
    goals = curve((np.arange(cells) + 0.5) / cells).reshape(n * n * length, length)
    now, fraction = goals[:, 0].copy(), np.zeros(len(goals))
    for j in range(1, length):
        up = goals[:, j] > now
        now += np.where(up, 1, -1) / cells
        fraction += up / 2**j
    return goals[:, 0].reshape(n, n, length), fraction.reshape(n, n, length)


def written_down(curve: Curve, n: int, length: int) -> pn.Layer:
    """The network for a curve of slope 1 at most and values in [0, 1], in float64: ``[batch, 1]`` to ``[batch, 1]``."""
    stack = Stack()
    l, value, fraction, _ = look_up(stack, walk(curve, n, length), indices(stack, n, length))
    return pn.serial(
        front=stack.network([fraction, l, value]),
        end=pn.branch(
            lambda count, kept: kept[:, 2:] + (2 * count - kept[:, 1:2]) / (n * length) ** 2,
            bits=pn.serial(first_two=lambda z: z[:, :2], count=theory.bit_extraction(length, jnp.float64)),
            kept=lambda z: z,
        ),
    )


def size(model: pn.Layer) -> tuple[int, int, int]:
    """Width, hidden layers and parameters; the two numbers kept beside the bits need a unit each."""
    leaves = flatten(jax.eval_shape(model.init, jax.random.key(0))[0])
    front = [
        leaf.shape[1] for path, leaf in leaves.items() if "front/layer" in path and path.endswith("kernel")
    ]
    bits = [
        leaf.shape[1]
        for path, leaf in leaves.items()
        if "bits/" in path and "layer" in path and "kernel" in path
    ]
    count = sum(leaf.size for leaf in leaves.values())
    return max([*front, *(width + 2 for width in bits)]), len(front) + len(bits), count


def zigzag(seed: int, kinks: int) -> Curve:
    """The distance to the nearest of some random places: of slope 1 or -1 everywhere."""
    places = np.random.default_rng(seed).uniform(0, 1, kinks)
    return lambda x: np.abs(x[:, None] - places).min(1)


def decide(rows: list[dict[str, float]], exponent: float) -> Verdict:
    """By size and error of each network beside the theorem's, by the exponent, and by the pieces that were counted."""
    within = all(
        row["width"] <= row["width allowed"]
        and row["depth"] <= row["depth allowed"]
        and row["error"] <= row["bound"]
        for row in rows
    )
    pieces = [row["pieces"] >= row["cells"] for row in rows if row["pieces"]]
    enough = len(rows) > 2 and len(pieces) > 0
    return verdict(
        within and all(pieces) and (not enough or abs(exponent + 2) <= 0.15), enough=enough or not within
    )


def measure(config: Config, n: int, length: int) -> dict[str, float]:
    """Size, worst error over the curves, and pieces, beside what the theorem promises."""
    bound, cells = theory.relu_bound(1, n, length), (n * length) ** 2
    draw = np.random.default_rng(0)
    # Anywhere in a cell but where the step to the next one rises.
    x = (draw.integers(0, cells, config.points) + draw.uniform(0, 1 - RISE, config.points)) / cells
    errors, pieces = [], 0
    for seed in range(config.curves):
        curve = zigzag(seed, config.kinks)
        model = written_down(curve, n, length)
        apply, (params, _) = pn.stateless(model), model.init(jax.random.key(0))
        line = lambda x, apply=apply, params=params: np.asarray(apply(params, jnp.asarray(x)[:, None]))[:, 0]
        errors.append(float(np.abs(line(x) - curve(x)).max()))
        if seed == 0 and cells <= config.counted_up_to:
            pieces = theory.count_pieces(line, 0, 1)
    width, depth, parameters = size(written_down(zigzag(0, config.kinks), n, length))
    return {
        "N": n,
        "L": length,
        "cells": cells,
        "pieces": pieces,
        "error": max(errors),
        "bound": bound.error,
        "width": width,
        "width allowed": bound.width,
        "depth": depth,
        "depth allowed": bound.depth,
        "parameters": parameters,
    }


def run(config: Config) -> Report:
    """Write the networks down, measure their errors, count their pieces."""
    with jax.enable_x64(True):
        rows = [measure(config, n, length) for n, length in config.sizes]
        shown = zigzag(0, config.kinks)
        model = written_down(shown, 2, 2)
        apply, (params, _) = pn.stateless(model), model.init(jax.random.key(0))
        x = np.linspace(0, 1, 2001)
        drawn = np.asarray(apply(params, jnp.asarray(x)[:, None]))[:, 0]
    product = np.array([row["N"] * row["L"] for row in rows])
    errors = np.array([row["error"] for row in rows])
    exponent = float(np.polyfit(np.log(product), np.log(errors), 1)[0])
    figure, panel = axes("N L", "worst error")
    panel.loglog(product, errors, "o", label=f"measured, exponent {exponent:.2f}")
    order = np.sort(product)
    panel.loglog(order, 19.0 / order**2, label="the theorem's bound, 19 / (NL)²")
    panel.loglog(order, 1.5 / order**2, label="1.5 / (NL)²")
    panel.legend(frameon=False)
    picture, panel = axes("x", "value")
    panel.plot(x, shown(x), label="curve")
    panel.plot(x, drawn, "-", label="network with N = L = 2")
    panel.legend(frameon=False)
    counted = [row for row in rows if row["pieces"]]
    return Report(
        numbers={
            "exponent of the error in N L": exponent,
            "largest share of the bound": float(max(row["error"] / row["bound"] for row in rows)),
            "largest error times (NL)^2": float((errors * product**2).max()),
            "fewest pieces over N^2 L^2": float(
                min((row["pieces"] / row["cells"] for row in counted), default=0.0)
            ),
            "curves": config.curves,
        },
        verdict=decide(rows, exponent),
        because=f"the error falls as (NL)^{exponent:.2f} and is {(errors * product**2).max():.2f} / (NL)^2 at most, "
        f"where the theorem allows 19; all of {len(rows)} sizes are written down for {config.curves} curves each",
        figures={"error_by_size": figure, "a_small_network": picture},
        tables={"Networks": Table(list(rows[0]), [list(row.values()) for row in rows])},
        metrics=rows,
    )
