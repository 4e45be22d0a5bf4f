"""Reading traced programs, and tracing what is done again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters.partial_eval import DynamicJaxprTracer

__all__ = ["programs_inside", "traced_once"]


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


def traced_once(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; where ``jax.jit`` traces it, traced once for all arguments of the same shapes and dtypes.

    What it computes stands in the program as if it had been traced every time, which for a rule that runs on many
    leaves would be most of the tracing. Outside of ``jax.jit`` nothing is compiled.
    """
    traced = jax.jit(rule, inline=True)

    def run(*args: Any) -> Any:
        return (traced if type(args[0]) is DynamicJaxprTracer else rule)(*args)

    return run
