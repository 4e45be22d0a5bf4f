"""A shortcut scaled by lambda makes the gradient decay by lambda for every block it passes.

Claim X14 (He et al. 2016b, equations 7 and 8). In a stack of blocks ``lambda x + F(x)`` the gradient on the input is
``lambda^L`` times that on the output, and a sum of products that each hold a Jacobian of F. For several lambda and
depths the norm of the gradient is measured in untrained stacks with small F, and the slope of its logarithm against
depth is fitted; the claim says log lambda. Beside it: shortcuts alone, whose gradient is lambda^L exactly, with the
printed 0.5^54 = 5.6e-17.

Refuted if a slope is further than 0.05 from log lambda.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Verdict, verdict
from purenets import initializers


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    factors: tuple[float, ...] = (0.5, 0.9, 1.0)
    depths: tuple[int, ...] = (2, 6, 12, 24, 54)
    units: int = 64
    size: float = 0.02
    """Of the weights of F, as a share of 1 / sqrt(units)."""
    seeds: int = 16


def gradient(config: Config, factor: float, depth: int, key: Any) -> jax.Array:
    """The norm of the gradient on the input over that on the output."""
    weights, inputs, towards = jax.random.split(key, 3)
    draw = initializers.normal(config.size / config.units**0.5)
    body = pn.serial(dense=pn.dense(config.units, config.units, kernel_init=draw), relu=jax.nn.relu)
    block = pn.branch(lambda f, x: f + factor * x, body=body, skip=pn.identity)
    stack = pn.repeat(block, depth)
    params, state = stack.init(weights)
    x, direction = (jax.random.normal(k, (1, config.units)) for k in (inputs, towards))
    slope = jax.grad(lambda x: jnp.vdot(stack.apply(params, state, x)[0], direction))(x)
    return jnp.linalg.norm(slope) / jnp.linalg.norm(direction)


def shortcuts_alone(factor: float, depth: int) -> float:
    """The same without any F."""
    stack = pn.serial(*[pn.function(lambda x: factor * x)] * depth)
    return float(jax.grad(lambda x: stack.apply({}, {}, x)[0])(jnp.float32(1.0)))


def decide(slopes: dict[float, float]) -> Verdict:
    """By the slope of the gradient's logarithm against depth, for each lambda."""
    return verdict(all(abs(slope - np.log(factor)) <= 0.05 for factor, slope in slopes.items()))


def run(config: Config) -> Report:
    """All factors and depths over all seeds."""
    norms = {
        factor: [
            float(
                np.exp(
                    np.log(pn.sweep(partial(gradient, config, factor, d), seeds=config.seeds).results).mean()
                )
            )
            for d in config.depths
        ]
        for factor in config.factors
    }
    slopes = {factor: float(np.polyfit(config.depths, np.log(line), 1)[0]) for factor, line in norms.items()}
    alone = shortcuts_alone(0.5, 54)
    figure, panel = axes("blocks", "gradient on the input over that on the output")
    for factor, line in norms.items():
        panel.plot(config.depths, line, marker="o", label=f"lambda {factor}: slope {slopes[factor]:.3f}")
        panel.plot(
            config.depths, [factor**d for d in config.depths], color="black", linewidth=0.8, linestyle=":"
        )
    panel.set_yscale("log")
    panel.legend(frameon=False)
    return Report(
        numbers={f"slope for lambda {factor}": slope for factor, slope in slopes.items()}
        | {f"log of {factor}": float(np.log(factor)) for factor in config.factors}
        | {"shortcuts alone, 54 halvings": alone},
        verdict=decide(slopes),
        because=", ".join(
            f"lambda {factor}: the slope is {slope:.3f} and log lambda {np.log(factor):.3f}"
            for factor, slope in slopes.items()
        )
        + f"; 54 shortcuts of one half leave {alone:.2e}",
        figures={"gradient_by_depth": figure},
    )
