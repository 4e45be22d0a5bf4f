"""A function that is traced more often than it should be says which argument was another one.

``jax.jit`` traces, and so compiles, a function anew for each combination of shapes, dtypes, weak types and static
values of its arguments. That a step does so again and again is a common reason for a slow training, and nothing tells.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from purenets.errors import describe
from purenets.paths import path_of

__all__ = ["RetraceError", "limit_traces"]

Fn = TypeVar("Fn", bound=Callable[..., Any])


class RetraceError(RuntimeError):
    """A function was traced more often than it was meant to be."""


def limit_traces(fn: Fn, most: int = 1) -> Fn:
    """The same function, which refuses to be traced more than ``most`` times: put it inside ``jax.jit``.

    It costs nothing while the compiled program runs. It sees what ``fn`` itself is traced for, so use one for
    each ``jax.jit``; a change of devices or shardings alone compiles anew without a trace.

    Args:
        fn: the function; of its arguments, arrays count by shape, dtype and weak type, anything else by value.
        most: how many traces are meant.

    Raises:
        ValueError: ``most`` is less than 1.
        RetraceError: (when called) this would be one trace more; the message has the arguments that differ from
            the most similar trace before.

    >>> import jax.numpy as jnp
    >>> total = jax.jit(limit_traces(lambda x, weight: jnp.sum(x * weight)))
    >>> total(jnp.ones(3), 2.0).item()
    6.0
    >>> total(jnp.ones(3), jnp.float32(2))
    Traceback (most recent call last):
    purenets.train.retrace.RetraceError: <lambda> was to be traced at most 1 time, and is traced again:
    weight was float32[] (weak), is float32[]...
    """
    if most < 1:
        raise ValueError(f"limit_traces needs at least 1 trace, got {most}")
    name = getattr(fn, "__name__", type(fn).__name__)
    traces: list[dict[str, str]] = []

    @functools.wraps(fn)
    def limited(*args: Any, **keywords: Any) -> Any:
        now = _forms(fn, args, keywords)
        if len(traces) >= most:
            raise RetraceError(_message(name, most, traces, now))
        traces.append(now)
        return fn(*args, **keywords)

    return limited  # type: ignore[return-value]


def _forms(fn: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, str]:
    """What a trace depends on: the path of each leaf of the arguments to its form."""
    try:
        bound = inspect.signature(fn).bind(*args, **keywords)
        bound.apply_defaults()
        given = bound.arguments
    except (TypeError, ValueError):  # the call itself will say what is wrong with it
        given = {**{str(place): arg for place, arg in enumerate(args)}, **keywords}
    return {path_of(path): _form(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(given)[0]}


def _form(leaf: Any) -> str:
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return repr(leaf)
    return describe(leaf) + (" (weak)" if getattr(leaf, "weak_type", False) else "")


def _message(name: str, most: int, traces: list[dict[str, str]], now: dict[str, str]) -> str:
    changes = min((_changes(before, now) for before in traces), key=len)
    listed = changes[:8] + ([f"… ({len(changes)} in all)"] if len(changes) > 8 else [])
    same = "all arguments are as before: it is under another transformation, or inside a jax.jit made anew"
    times = f"{most} time" + ("s" if most > 1 else "")
    return f"{name} was to be traced at most {times}, and is traced again:\n" + ("\n".join(listed) or same)


def _changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{path} was {before.get(path, 'not there')}, is {now.get(path, 'not there')}"
        for path in {**before, **now}
        if before.get(path) != now.get(path)
    ]
