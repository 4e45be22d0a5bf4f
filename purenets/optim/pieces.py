"""A traced program cut up by the leaves of the trees that it works on.

A *large* value has at least so many entries, all others are *small* (counts, rates, norms). Equations that pass
large values to each other belong to one *strand*. A strand waits for a small value made of large ones, such as the
norm of all gradients: equations are on *level* 0 that wait for none, on level 1 that wait for one of level 0, and so
on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jax.sharding import Sharding

__all__ = ["Piece", "entries", "joined", "levels_of", "likeness", "opened", "variables"]


@dataclass(slots=True)
class Piece:
    """Equations, from the values that they need to those that are needed of them elsewhere."""

    eqns: list[JaxprEqn]
    invars: list[Var]
    outvars: list[Var]


def opened(jaxpr: Jaxpr, large: int) -> Jaxpr:
    """The program with the equations of jitted functions in place of their calls, where they make large values."""
    if not any(
        eqn.primitive.name == "jit" and any(entries(v) >= large for v in eqn.outvars) for eqn in jaxpr.eqns
    ):
        return jaxpr
    names: dict[Var, Any] = {}
    eqns = list(_equations(jaxpr, names))
    return jaxpr.replace(eqns=eqns, outvars=[_named(v, names) for v in jaxpr.outvars])


def _equations(jaxpr: Jaxpr, names: dict[Var, Any]) -> Iterator[JaxprEqn]:
    for eqn in jaxpr.eqns:
        inputs = [_named(v, names) for v in eqn.invars]
        inner: Any = eqn.params.get("jaxpr")
        if eqn.primitive.name == "jit" and not inner.consts and _is_free(eqn):
            inside = dict(zip(inner.jaxpr.invars, inputs, strict=True))
            yield from _equations(inner.jaxpr, inside)
            names |= {
                v: _named(made, inside) for v, made in zip(eqn.outvars, inner.jaxpr.outvars, strict=True)
            }
        else:
            # A function that is called twice has its variables twice.
            names |= {v: Var(v.aval) for v in eqn.outvars}
            yield eqn.replace(invars=inputs, outvars=[names[v] for v in eqn.outvars])


def _named(v: Any, names: dict[Var, Any]) -> Any:
    return v if isinstance(v, Literal) else names.get(v, v)


def _is_free(eqn: JaxprEqn) -> bool:
    """Whether a call of a jitted function lays no value out over devices."""
    layouts = (*eqn.params["in_shardings"], *eqn.params["out_shardings"])
    return not any(isinstance(layout, Sharding) for layout in layouts)


def levels_of(jaxpr: Jaxpr, large: int) -> list[tuple[list[Piece], list[Piece]]]:
    """The levels in the order in which they can run: on each the small equations, if there are any, and the strands."""
    # No literal is large.
    values: list[list[Any]] = [
        [v for v in (*eqn.invars, *eqn.outvars) if entries(v) >= large] for eqn in jaxpr.eqns
    ]
    strands = _Strands()
    for together in values:
        strands.join(together)
    found: dict[tuple[int, int], list[JaxprEqn]] = defaultdict(list)
    for eqn, own, level in zip(jaxpr.eqns, values, _numbers(jaxpr, values, large), strict=True):
        found[level, strands.number(own[0]) if own else 0].append(eqn)
    pieces = dict(zip(found, _closed(jaxpr, list(found.values())), strict=True))
    split: dict[int, tuple[list[Piece], list[Piece]]] = defaultdict(lambda: ([], []))
    for level, strand in sorted(found):
        split[level][strand > 0].append(pieces[level, strand])
    return list(split.values())


def _numbers(jaxpr: Jaxpr, values: list[list[Var]], large: int) -> list[int]:
    """The level of each equation: the last on which those that use its values can still have them.

    So what is cheap to make, such as a decayed average, waits for what it goes into.
    """

    def step(own: list[Var], made: Var) -> bool:
        return bool(own) and entries(made) < large  # a small value made of large ones

    if not any(step(own, v) for eqn, own in zip(jaxpr.eqns, values, strict=True) for v in eqn.outvars):
        return [0] * len(values)
    first: dict[Var, int] = {}
    for eqn, own in zip(jaxpr.eqns, values, strict=True):
        level = max((first.get(v, 0) for v in variables(eqn.invars)), default=0)
        first |= {v: level + step(own, v) for v in eqn.outvars}
    last = dict.fromkeys(variables(jaxpr.outvars), max(first.values(), default=0))
    levels = []
    for eqn, own in zip(reversed(jaxpr.eqns), reversed(values), strict=True):
        level = min((last[v] - step(own, v) for v in eqn.outvars if v in last), default=0)
        last |= {v: min(level, last.get(v, level)) for v in variables(eqn.invars)}
        levels.append(level)
    return levels[::-1]


def _closed(jaxpr: Jaxpr, pieces: Sequence[list[JaxprEqn]]) -> list[Piece]:
    """Each list of equations with the values that it needs and those that are needed of it elsewhere."""
    home = {v: at for at, eqns in enumerate(pieces) for eqn in eqns for v in eqn.outvars}
    given = [
        [v for eqn in eqns for v in eqn.invars if not isinstance(v, Literal) and home.get(v) != at]
        for at, eqns in enumerate(pieces)
    ]
    needed = {*variables(jaxpr.outvars), *(v for inputs in given for v in inputs)}
    return [
        Piece(eqns, list(dict.fromkeys(inputs)), [v for eqn in eqns for v in eqn.outvars if v in needed])
        for eqns, inputs in zip(pieces, given, strict=True)
    ]


class _Strands:
    """Sets of large values that equations connect."""

    def __init__(self) -> None:
        self._parent: dict[Var, Var] = {}
        self._numbers: dict[Var, int] = {}

    def _root(self, value: Var) -> Var:
        while (parent := self._parent.get(value, value)) is not value:
            value = parent
        return value

    def join(self, values: Sequence[Var]) -> None:
        """Make them one set."""
        for value in values[1:]:
            one, other = self._root(value), self._root(values[0])
            if one is not other:
                self._parent[one] = other

    def number(self, value: Var) -> int:
        """That of its set, from 1 on in the order in which sets are asked for."""
        return self._numbers.setdefault(self._root(value), len(self._numbers) + 1)


def joined(pieces: Sequence[Piece]) -> Piece:
    """Several pieces as one, which does what they do one after another."""
    if len(pieces) == 1:
        return pieces[0]
    made = {v for piece in pieces for v in piece.outvars}
    needed = dict.fromkeys(v for piece in pieces for v in piece.invars if v not in made)
    return Piece(
        [eqn for piece in pieces for eqn in piece.eqns],
        list(needed),
        [v for piece in pieces for v in piece.outvars],
    )


def likeness(piece: Piece) -> Hashable:
    """What is equal for two pieces only if they compute the same from inputs of the same shapes.

    What cannot be hashed is told apart by its identity, which lasts as long as the piece that has it.
    """
    number = {v: at for at, v in enumerate(piece.invars)}
    row: list[Any] = [v.aval for v in piece.invars]
    for eqn in piece.eqns:
        row += eqn.primitive, len(eqn.params), len(eqn.invars)
        for name, value in sorted(eqn.params.items()):
            row += name, value if isinstance(value, Hashable) else id(value)
        for v in eqn.invars:
            row += (np.asarray(v.val).tobytes(), v.aval) if isinstance(v, Literal) else (number[v],)
        for v in eqn.outvars:
            number[v] = len(number)
            row.append(v.aval)
    return (*row, *(number[v] for v in piece.outvars))


def variables(atoms: Iterable[Any]) -> list[Var]:
    """Those that are no literals."""
    return [v for v in atoms if not isinstance(v, Literal)]


def entries(v: Any) -> int:
    """How many numbers a value has."""
    return _product(v.aval.shape)


@cache
def _product(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
