"""L6, convergence: last and least. An optimizer that passes here alone has shown next to nothing.

On a bowl with curvatures from one to ten, from one of several learning rates, the value after three hundred
steps is at most half of what it was at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.report import Fail, Note, Question, Skip
from purenets.conform.runs import fast_jit, traceable
from purenets.conform.subject import Subject

__all__ = ["questions"]

STEPS = 300
FACTORS = (10.0, 1.0, 0.1, 0.01)


def questions(subject: Subject) -> Iterator[tuple[str, Question]]:
    """What L6 asks."""
    yield "downhill on a bowl", lambda: _bowl(subject)


def _value(p: Any) -> Any:
    return (
        jnp.sum(p["w"] ** 2 * jnp.linspace(1.0, 10.0, 6).reshape(2, 3)) / 2 + jnp.sum((p["b"] - 1) ** 2) / 2
    )


def _bowl(subject: Subject) -> str:
    name = subject.rate
    if name is None or not isinstance(subject.default(name), int | float):
        raise Skip("no learning rate that is a number")
    base = float(subject.default(name))
    start = {"w": jnp.ones((2, 3)), "b": jnp.full((2,), -0.5)}

    def descend(rate: Any) -> Any:
        tx = subject.build({name: rate})

        def body(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = subject.step(tx, jax.grad(_value)(params), state, params)
            return (jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (start, tx.init(start)), length=STEPS)
        return _value(params)

    rates = [base * factor for factor in FACTORS]
    if traceable(subject, {}, {name: base}):
        ends = np.asarray(fast_jit(jax.vmap(descend))(jnp.asarray(rates)))
    else:
        ends = np.asarray([fast_jit(lambda rate=rate: descend(rate))() for rate in rates[1:3]])
    before, after = float(_value(start)), float(np.nanmin(ends)) if np.isfinite(ends).any() else float("nan")
    if not after <= before / 2:
        # Whoever freezes leaves, or keeps their mean, cannot come to the bottom, but comes down.
        raise (Note if after <= 0.9 * before else Fail)(
            f"from {before:.3g} to {after:.3g} at best, over rates {', '.join(f'{r:g}' for r in rates)}"
        )
    return f"{before:.3g} to {after:.3g}"
