"""Reading traced programs, and tracing what is done again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.api_util import debug_info
from jax.extend import linear_util
from jax.extend.core import ClosedJaxpr
from jax.interpreters.partial_eval import DynamicJaxprTracer, trace_to_jaxpr_dynamic

__all__ = ["alike", "for_each", "program_of", "programs_inside"]

_SEVERAL, _LOT = 4, 8
"""From how many rows on tracing once is worth a function of its own, and how many are put into a program at once."""


def programs_inside(eqn: Any) -> list[Any]:
    """The programs inside an equation. Of a custom derivative the function itself, not its rules."""
    found = []
    for value in eqn.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(one, "jaxpr"):
                found.append(one.jaxpr)
            elif hasattr(one, "eqns"):
                found.append(one)
    return found


def program_of(function: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> ClosedJaxpr:
    """The program of a function from arrays to arrays, for arrays of these abstract values.

    That of ``jax.make_jaxpr``, which would also make a name for each array, and take longer for that than for all else.
    """
    named = avals if jax.config.jax_enable_checks else ()  # type: ignore[attr-defined]
    flat = linear_util.wrap_init(function, debug_info=debug_info("jit", function, named, {}))
    jaxpr, _, consts = trace_to_jaxpr_dynamic(flat, avals)
    return ClosedJaxpr(jaxpr, consts)


def alike(rows: Sequence[Sequence[Any]]) -> list[list[int]]:
    """The numbers of the rows, together where the same arrays by shape and dtype stand at the same places."""
    found: dict[Any, list[int]] = {}
    for at, row in enumerate(rows):
        leaves, structure = jax.tree.flatten(row)
        kinds = [(getattr(x, "shape", ()), getattr(x, "dtype", None), type(x)) for x in leaves]
        found.setdefault((structure, *kinds), []).append(at)
    return list(found.values())


def for_each(rule: Callable[..., Any], rows: Sequence[Sequence[Any]]) -> list[Any]:
    """What a rule makes of each of several rows that are alike.

    Where ``jax.jit`` traces several, they are traced once and put into the program by the lot, as if each had been
    traced: for a rule that runs on many leaves that would be most of the work. Outside of ``jax.jit`` nothing is
    compiled.
    """
    if len(rows) < _SEVERAL or type(rows[0][0]) is not DynamicJaxprTracer:
        return [rule(*row) for row in rows]
    once = jax.jit(rule, inline=True)
    if len(rows) <= 2 * _LOT:
        return [once(*row) for row in rows]
    lot = jax.jit(lambda some: [once(*row) for row in some], inline=True)
    return [made for at in range(0, len(rows), _LOT) for made in lot(rows[at : at + _LOT])]
