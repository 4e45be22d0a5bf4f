"""JAX by hand: one rule that is mapped over the leaves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import DECAY, RATE, updates

B1, B2, EPS = 0.9, 0.999, 1e-8


def _adam(method: str, params: Any, state: Any, gradients: Any) -> Any:
    count, mu, nu = state
    count = count + 1
    first, second = 1 - B1**count, 1 - B2**count

    def rule(p: jax.Array, m: jax.Array, v: jax.Array, g: jax.Array) -> Any:
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        ahead = m / first
        if method == "nadam":
            ahead = B1 * m / (1 - B1 ** (count + 1)) + (1 - B1) * g / first
        change = ahead / (jnp.sqrt(v / second) + EPS)
        return p - RATE * (change + DECAY * p if method == "adamw" else change), m, v

    return _mapped(rule, params, (mu, nu), gradients, (count,))


def _momentum(params: Any, state: Any, gradients: Any) -> Any:
    def rule(p: jax.Array, m: jax.Array, g: jax.Array) -> Any:
        m = 0.9 * m + g
        return p - RATE * m, m

    return _mapped(rule, params, state, gradients, ())


def _mapped(rule: Any, params: Any, averages: Any, gradients: Any, ahead: Any) -> Any:
    names = list(params)
    new = {name: rule(params[name], *(a[name] for a in averages), gradients[name]) for name in names}
    trees = [{name: new[name][i] for name in names} for i in range(1 + len(averages))]
    return trees[0], (*ahead, *trees[1:])


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    method = case.given["method"]
    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
    if method == "momentum":
        return {"a rule for each leaf": updates(case, lambda params: (zeros(params),), _momentum)}
    init = lambda params: (jnp.float32(0), zeros(params), zeros(params))
    return {"a rule for each leaf": updates(case, init, lambda p, s, g: _adam(method, p, s, g))}
