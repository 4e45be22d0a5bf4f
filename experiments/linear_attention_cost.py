"""Softmax attention costs the square of the length of a sequence, linear attention the length.

Claim X50 (Katharopoulos et al. 2020). The compiler counts the floating-point operations of one layer of each
kind, both ways in time and without its dense projections' share growing faster than the length, for sequences
of doubling length. What grows is read off as the exponent of the last doubling, after the part that is linear
in both, the projections, is taken away. And the two forms of linear attention, by the matrix of all weights
and by running sums, are held against each other.

Refuted if softmax attention's exponent is not within 0.1 of 2, linear attention's not within 0.1 of 1, or the
two forms differ by more than 1e-4.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import curves
from experiments.report import Report, Verdict, verdict


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    dim: int = 64
    heads: int = 4


def operations(layer: pn.Layer, length: int, dim: int) -> float:
    """Floating-point operations of one application to one sequence, as the compiler counts them."""
    params, state = jax.eval_shape(layer.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, length, dim), jnp.float32)
    compiled = jax.jit(lambda p, x: layer.apply(p, state, x)[0]).lower(params, x).compile()
    return float(compiled.cost_analysis()["flops"])


def exponent(counts: list[float], lengths: tuple[int, ...], linear: float) -> float:
    """Of the growth over the last doubling, without ``linear`` operations a token."""
    rest = [count - linear * length for count, length in zip(counts, lengths, strict=True)]
    return float(np.log(rest[-1] / rest[-2]) / np.log(lengths[-1] / lengths[-2]))


def decide(softmax: float, linear: float, difference: float) -> Verdict:
    """By the exponents, and how far the two forms of linear attention are apart."""
    return verdict(abs(softmax - 2) < 0.1 and abs(linear - 1) < 0.1 and difference < 1e-4)


def run(config: Config) -> Report:
    """Both kinds at all lengths."""
    kinds = {
        "softmax": pn.attention(config.dim, config.heads),
        "linear": pn.linear_attention(config.dim, config.heads),
    }
    counts = {name: [operations(k, n, config.dim) for n in config.lengths] for name, k in kinds.items()}
    projections = 4 * 2 * config.dim**2
    powers = {name: exponent(found, config.lengths, projections) for name, found in counts.items()}
    whole = pn.linear_attention(config.dim, config.heads, causal=True, chunk=256)
    steps = pn.linear_attention(config.dim, config.heads, causal=True, chunk=1)
    params, _ = whole.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 256, config.dim))
    difference = float(jnp.abs(whole.apply(params, {}, x)[0] - steps.apply(params, {}, x)[0]).max())
    return Report(
        numbers={
            "exponent of softmax attention": powers["softmax"],
            "exponent of linear attention": powers["linear"],
            "largest difference of the two forms": difference,
            "operations, softmax": counts["softmax"],
            "operations, linear": counts["linear"],
            "lengths": list(config.lengths),
        },
        verdict=decide(powers["softmax"], powers["linear"], difference),
        because=f"operations grow as the {powers['softmax']:.2f}th power of the length for softmax attention "
        f"(claimed 2) and the {powers['linear']:.2f}th for linear (claimed 1); its two forms differ by "
        f"{difference:.1e}",
        figures={"operations": curves(counts, x="length", y="operations", at=config.lengths, log="xy")},
    )
