"""An optimizer with its float32 scalars in float64: what is left of a difference then is not rounding.

Many optimizers compute a bias correction in float32 whatever the dtype of the parameters:
``1 - b2 ** count.astype(jnp.float32)`` has an error of 1e-5 where ``b2`` is 0.999. In float32 that is the
rounding of everybody; in float64, where the kit compares to 1e-12, it looks like a defect. So where an
optimizer fails, it is asked again with every *scalar* of its program that is float32 computed in float64, and
with constants read as the shortest decimal that they stand for. A wrong rule stays wrong. A constant of many digits,
such as pi or a number made of others, has lost the rest of them; what that may come to is seen from runs with these
constants *nudged* by half a unit in the last place. Arrays keep their precision, since gradients that lose digits on
the way are a defect; but where the reference keeps float32 arrays itself, both sides are compared with arrays in
float64 too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from purenets.conform.subject import Subject, Transform
from purenets.programs import programs_inside

__all__ = ["NUDGES", "Widened", "narrow"]

NUDGES = 3
"""How many choices of ups and downs are tried."""

DIGITS = 6
"""Constants of no more than these significant digits are taken for exact."""

CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
"""Primitives that only wrap a program of their own."""

DTYPES = ("new_dtype", "dtype", "preferred_element_type")
"""Parameters of primitives that name a dtype."""


class Widened(Subject):
    """A subject whose float32 scalars, or arrays too, are computed in float64 where 64 bits are enabled."""

    def __init__(self, subject: Subject, arrays: bool = False) -> None:
        self.__dict__.update(subject.__dict__)
        self.name = f"{subject.name} in float64{' throughout' if arrays else ''}"
        self.arrays = arrays
        self.nudge = 0
        self.has_rounded_constants = False
        """Whether a program that was traced so far has constants of many digits."""

    def nudged(self, nudge: int) -> Widened:
        """The same with constants of many digits moved, by 1 to ``NUDGES`` in different directions."""
        other = Widened(self, self.arrays)
        other.name, other.nudge = self.name, nudge
        return other

    def build(self, settings: Mapping[str, Any] | None = None) -> Transform:
        """The optimizer for these settings, its functions widened."""
        made = super().build(settings)
        if made.numpy:
            return made
        wide = _Wide(self)
        return made._replace(init=wide.first(made.init), update=wide(made.update))


def narrow(subject: Subject, arrays: bool = False) -> bool:
    """Whether scalars, or arrays, of this optimizer are float32 where parameters and gradients are float64."""
    with jax.enable_x64(True):
        tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
        program = subject.program(tree)
    # What cannot be traced is not asked again.
    return program is not None and _has(
        program.jaxpr, lambda v: _single(v) and (v.aval.shape != ()) == arrays
    )


def _single(var: Any) -> bool:
    return getattr(var.aval, "dtype", None) == np.float32


def _has(jaxpr: Jaxpr, wanted: Callable[[Any], bool]) -> bool:
    return any(
        any(map(wanted, (*eqn.invars, *eqn.outvars))) or ((sub := _inside(eqn)) and _has(sub.jaxpr, wanted))
        for eqn in jaxpr.eqns
    )


def _inside(eqn: Any) -> ClosedJaxpr | None:
    """The program that a call wraps."""
    if eqn.primitive.name not in CALLS:
        return None
    found = (eqn.params.get(key) for key in ("jaxpr", "call_jaxpr"))
    return next((x for x in found if isinstance(x, ClosedJaxpr)), None)


def _decimal(x: Any) -> Any:
    """A float32 number as the shortest decimal that rounds to it, in float64.

    >>> float(_decimal(np.float32(0.999)))
    0.999
    """
    return np.float64(str(np.float32(x)))


class _Wide:
    """Widens functions: a program is traced, and evaluated with float64 in place of float32."""

    def __init__(self, subject: Widened) -> None:
        self.subject, self.arrays = subject, subject.arrays
        self.constants = 0
        self.state: Any = None
        """The state as it would be, by which an update is traced."""

    def first(self, init: Callable[..., Any]) -> Callable[..., Any]:
        """``init``, widened; the form of its state is kept."""

        def call(params: Any) -> Any:
            self.state = jax.eval_shape(init, params)
            return self(init)(params)

        return call

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if jnp.result_type(float) != np.float64:
                return fn(*args, **keywords)
            # What is no array, such as a function of the loss, is not an argument of the program.
            leaves, tree = jax.tree.flatten((args, keywords))
            numbers = [i for i, x in enumerate(leaves) if not callable(x)]

            def flat(*values: Any) -> Any:
                whole = list(leaves)
                for i, value in zip(numbers, values, strict=True):
                    whole[i] = value
                args, keywords = jax.tree.unflatten(tree, whole)
                return fn(*args, **keywords)

            values = [leaves[i] for i in numbers]
            forms = values
            if len(args) > 1 and operator.eq(*map(jax.tree.structure, (args[1], self.state))):
                told = jax.tree.leaves((args[0], self.state, *args[2:], keywords))
                forms = [told[i] for i in numbers]
            closed, shape = jax.make_jaxpr(flat, return_shape=True)(*forms)
            out = self._evaluate(closed, values)
            return jax.tree.unflatten(jax.tree.structure(shape), out)

        return call

    def _is_wide(self, var: Any) -> bool:
        return _single(var) and (self.arrays or var.aval.shape == ())

    def _evaluate(self, closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))

        def read(var: Any) -> Any:
            if not isinstance(var, Literal):
                return values[var]
            return self._constant(var.val) if self._is_wide(var) else var.val

        for eqn in jaxpr.eqns:
            given = [read(v) for v in eqn.invars]
            inner = _inside(eqn)
            out = self._bind(eqn, given) if inner is None else self._evaluate(inner, given)
            values.update(zip(eqn.outvars, out, strict=True))
        wide = lambda v: jnp.asarray(read(v), np.float64) if self._is_wide(v) else read(v)
        return [wide(v) for v in jaxpr.outvars]

    def _constant(self, x: Any) -> Any:
        exact = _decimal(x)
        if np.ndim(x) or float(f"{exact:.{DIGITS}g}") == exact:
            return exact
        self.subject.has_rounded_constants = True
        if not self.subject.nudge:
            return exact
        self.constants += 1
        up = np.random.default_rng((self.subject.nudge, self.constants)).integers(0, 2)
        return exact * (1 + (2 * up - 1) * np.finfo(np.float32).eps / 2)

    def _bind(self, eqn: Any, given: list[Any]) -> list[Any]:
        """One primitive, in float64 where all that is float32 in it may be."""
        variables = (*eqn.invars, *eqn.outvars)
        single = [v for v in variables if _single(v)]
        # A loop has programs of its own, which expect what they were traced with.
        whole = not programs_inside(eqn)
        if eqn.primitive.name == "cond":
            branches = [partial(lambda b, *xs: self._evaluate(b, xs), b) for b in eqn.params["branches"]]
            return list(jax.lax.switch(given[0], branches, *given[1:]))
        params = dict(eqn.params)
        if single and whole and all(map(self._is_wide, single)):
            wide = np.dtype(np.float64)
            given = [
                jnp.asarray(x, wide) if _single(v) else x for v, x in zip(eqn.invars, given, strict=True)
            ]
            params = {k: wide if k in DTYPES and x == np.float32 else x for k, x in params.items()}
        else:
            given = [
                jnp.asarray(x, v.aval.dtype) if _single(v) else x
                for v, x in zip(eqn.invars, given, strict=True)
            ]
        out = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(params))
        return list(out) if eqn.primitive.multiple_results else [out]
