"""A linear recurrence with a diagonal matrix, all of whose steps are computed at once.

The linear recurrent unit (Orvieto et al. 2023, section 3): with complex diagonal ``a``,
``h' = a h + s B x`` and ``y = Re(C h') + D x``. Being linear, the steps compose: two of them are
``(a, u), (b, v) -> (b a, b u + v)``, which is associative, so a sequence of n takes log n rounds and no loop.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from purenets.layer import Key, Params, fold_name
from purenets.layers.cells import Cell

__all__ = ["lru_cell"]


def lru_cell(
    n_in: int,
    n_state: int,
    n_out: int,
    *,
    radius: tuple[float, float] = (0.9, 0.999),
    phase: float = math.pi / 10,
) -> Cell:
    """The linear recurrent unit, of ``n_state`` complex numbers.

    Params, all real: ``decay`` and ``angle [n_state]``, with ``a = exp(-exp(decay) + i exp(angle))``, so that
    its modulus stays below 1; ``input [n_in, 2 n_state]`` and ``output [2 n_state, n_out]``, real and
    imaginary parts side by side; ``skip [n_in, n_out]``. The input is scaled by ``s = sqrt(1 - |a|^2)``, which
    keeps the variance of the state at that of the input.

    Args:
        n_in: features of the input.
        n_state: complex numbers that are remembered.
        n_out: features of the output.
        radius: between which the moduli of ``a`` are drawn, uniformly over the ring.
        phase: below which its angles are drawn.

    Raises:
        ValueError: the radii are not ``0 < low < high < 1``.
    """
    low, high = radius
    if not 0 < low < high < 1:
        raise ValueError(f"lru_cell needs radii 0 < low < high < 1, got {radius}")

    def init(key: Key) -> Params:
        draw = lambda name, shape: jax.random.normal(fold_name(key, name), shape, jnp.float32)
        squared = jax.random.uniform(fold_name(key, "decay"), (n_state,), minval=low**2, maxval=high**2)
        angle = jax.random.uniform(fold_name(key, "angle"), (n_state,), minval=1e-4, maxval=phase)
        return {
            "decay": jnp.log(-0.5 * jnp.log(squared)),
            "angle": jnp.log(angle),
            "input": draw("input", (n_in, 2 * n_state)) / math.sqrt(2 * n_in),
            "output": draw("output", (2 * n_state, n_out)) / math.sqrt(n_state),
            "skip": draw("skip", (n_in, n_out)) / math.sqrt(n_in),
        }

    def diagonal(params: Params) -> jax.Array:
        return jnp.exp(jax.lax.complex(-jnp.exp(params["decay"]), jnp.exp(params["angle"])))

    def project(params: Params, x: jax.Array) -> Any:
        scale = jnp.sqrt(-jnp.expm1(-2 * jnp.exp(params["decay"])))
        real, imaginary = jnp.split(x @ params["input"], 2, -1)
        return jax.lax.complex(scale * real, scale * imaginary), x @ params["skip"]

    def read(params: Params, h: jax.Array, skip: jax.Array) -> jax.Array:
        return jnp.concatenate([h.real, -h.imag], -1) @ params["output"] + skip

    def step(params: Params, h: jax.Array, given: Any) -> tuple[jax.Array, jax.Array]:
        u, skip = given
        h = diagonal(params) * h + u
        return h, read(params, h, skip)

    def sequence(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        u, skip = project(params, x)
        a = diagonal(params)
        u = u.at[0].add(a * h)

        def after(first: Any, second: Any) -> Any:
            return second[0] * first[0], second[0] * first[1] + second[1]

        _, states = jax.lax.associative_scan(after, (jnp.broadcast_to(a, u.shape), u))
        return states[-1], read(params, states, skip)

    def carry(batch: int) -> jax.Array:
        return jnp.zeros((batch, n_state), jnp.complex64)

    label = f"lru_cell({n_in}, {n_state}, {n_out})"
    return Cell(init, carry, step, n_in, n_out, label, project, sequence)
