"""Seven units in a layer count the bits of a number exactly, as many bits as its type holds.

Catalogue row M31 (Shen, Yang & Zhang 2020, lemma 3.5): a ReLU network of width 7 with two hidden layers for each
bit, written down and not trained, takes ``0.t1 t2 ... tL`` and l and gives how many of the first l bits are 1. All
strings up to eight bits with all l are tried, and random longer ones. float32 holds 24 bits and float64 holds 53;
strings that pass through float32 on their way to the float64 network show that the limit is that of the number.

Refuted by one wrong count within the limits, by none beyond them, or by a network wider than 7.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import theory
from purenets.paths import flatten

LIMITS = {"float32": 24, "float64": 53}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    all_up_to: int = 8
    """Bits of the strings that are all tried."""
    lengths: tuple[int, ...] = (1, 4, 8, 12, 16, 20, 22, 23, 24, 25, 26, 28, 32, 40, 48, 52, 53)
    strings: int = 500
    """Random strings of each length, each with a random l."""
    seed: int = 0


def count_right(strings: np.ndarray, counts: np.ndarray, dtype: str, through: str | None = None) -> float:
    """The share of strings ``[n, length]`` whose first ``counts`` bits the network counts right.

    ``through`` rounds the fractions to another type first.
    """
    fractions = np.array([theory.binary_fraction(bits.tolist()) for bits in strings])
    if through:
        fractions = fractions.astype(through)
    model = theory.bit_extraction(strings.shape[1], jnp.dtype(dtype))
    apply, (params, _) = pn.stateless(model), model.init(jax.random.key(0))
    found = apply(params, jnp.asarray(np.stack([fractions, counts], 1), dtype))[:, 0]
    wanted = (strings * (np.arange(strings.shape[1]) < counts[:, None])).sum(1)
    return float(np.mean(np.asarray(found) == wanted))


def every(length: int) -> tuple[np.ndarray, np.ndarray]:
    """All strings of this length, each with all l."""
    strings = np.array(list(itertools.product((0, 1), repeat=length)))
    return np.repeat(strings, length + 1, 0), np.tile(np.arange(length + 1), len(strings))


def size(length: int) -> tuple[int, int]:
    """The width and the number of hidden layers of the network, from its parameters."""
    params, _ = theory.bit_extraction(length).init(jax.random.key(0))
    widths = [leaf.shape[1] for path, leaf in flatten(params).items() if path.endswith("kernel")]
    return max(widths), len(widths) - 1


def decide(within: list[float], beyond: list[float], width: int) -> Verdict:
    """By the shares counted right within the limits of the types and beyond, and the width."""
    right = min(within) == 1 and width == 7
    return verdict(right and max(beyond, default=0.0) < 1, enough=bool(beyond) or not right)


def run(config: Config) -> Report:
    """All short strings, then random long ones."""
    draw = np.random.default_rng(config.seed)
    shares: dict[str, dict[int, float]] = {
        "float32": {},
        "float64": {},
        "float64, input rounded to float32": {},
    }
    tried = 0
    with jax.enable_x64(True):
        exact = []
        for length in range(1, config.all_up_to + 1):
            strings, counts = every(length)
            tried += 2 * len(strings)
            exact += [count_right(strings, counts, dtype) for dtype in LIMITS]
        for length in config.lengths:
            strings = draw.integers(0, 2, (config.strings, length))
            counts = draw.integers(0, length + 1, config.strings)
            counts[: config.strings // 2] = length
            for dtype, limit in LIMITS.items():
                if length <= limit:
                    shares[dtype][length] = count_right(strings, counts, dtype)
                    tried += config.strings
            rounded = count_right(strings, counts, "float64", "float32")
            shares["float64, input rounded to float32"][length] = rounded
    limit = LIMITS["float32"]
    beyond = [
        share for length, share in shares["float64, input rounded to float32"].items() if length > limit
    ]
    within = [*exact, *shares["float32"].values(), *shares["float64"].values()]
    width, depth = size(config.all_up_to)
    figure, panel = axes("bits in the string", "share of strings counted right")
    for name, points in shares.items():
        panel.plot(list(points), list(points.values()), marker="o", ms=4, label=name)
    panel.axvline(limit + 0.5, color="black", lw=0.8)
    panel.set_ylim(-0.05, 1.1)
    panel.legend(frameon=False, loc="lower left")
    return Report(
        numbers={
            "strings tried": tried,
            "share right within the limits, least": min(within),
            "longest string in float64": max(shares["float64"]),
            "share right when float32 has to hold more than 24 bits, most": max(beyond, default=None),
            "width": width,
            f"hidden layers for {config.all_up_to} bits": depth,
        },
        verdict=decide(within, beyond, width),
        because=f"of {tried} strings, up to {max(shares['float32'])} bits in float32 and {max(shares['float64'])} in "
        f"float64, at least {min(within):.0%} of each length are counted right by width {width}"
        + (f"; of longer ones through float32 {max(beyond):.0%} at most" if beyond else ""),
        figures={"share_right_by_length": figure},
        tables={
            "Share right": Table(
                ["bits", *shares],
                [
                    [length, *(points.get(length, "") for points in shares.values())]
                    for length in config.lengths
                ],
            )
        },
    )
