"""Which delicate operations of a program are computed in 16 bits, by the layer they are in.

*Delicate* are sums and what makes large numbers of small ones or the reverse: exponentials, logarithms, powers and
inverse roots. Norms, softmax and losses are made of them and belong in float32, also inside a model that is cast to
bfloat16 or float16. Products are not delicate: hardware adds up their terms in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from purenets.inspect.cost import scope_of
from purenets.programs import programs_inside

__all__ = ["half_precision_by_scope"]

_POWERS = {"exp", "exp2", "expm1", "log", "log1p", "pow", "rsqrt", "cbrt"}
_SUMS = {"reduce_sum", "reduce_prod", "reduce_window_sum", "cumsum", "cumprod", "cumlogsumexp"}


def half_precision_by_scope(fn: Callable[..., Any], *args: Any) -> dict[str, dict[str, str]]:
    """For each name scope its delicate operations of 16 bits, and their dtype; empty if there are none.

    Inside a model the name scope is the path of a layer, and outside it is ``""``. Nothing is computed.

    Args:
        fn: a model's ``apply``, an objective, a loss, a whole step.
        args: what it is given; ``jax.ShapeDtypeStruct`` will do.

    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    >>> half_precision_by_scope(lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), x)
    {'': {'exp': 'bfloat16'}}
    """
    found: dict[str, dict[str, str]] = {}
    for scope, name, dtype in _delicate(jax.make_jaxpr(fn)(*args).jaxpr, ""):
        found.setdefault(scope, {})[name] = dtype
    return found


def _delicate(jaxpr: Any, outer: str) -> Iterator[tuple[str, str, str]]:
    for eqn in jaxpr.eqns:
        scope = scope_of(eqn, outer)
        for inner in programs_inside(eqn):
            yield from _delicate(inner, scope)
        dtypes = [str(getattr(var.aval, "dtype", "")) for var in eqn.outvars]
        if eqn.primitive.name in _POWERS | _SUMS and (half := {"float16", "bfloat16"}.intersection(dtypes)):
            yield scope, eqn.primitive.name, half.pop()
