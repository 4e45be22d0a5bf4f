"""An update and its application as one program for each leaf, so that a leaf is read from memory once.

Written for whole trees, ``optimizer.update`` and ``apply_updates`` become one long program in which XLA's CPU backend
computes the new state of *all* leaves before the new params of any. Until it comes back to a leaf, that leaf has left
the cache, and is read a second time. :func:`leaf_by_leaf` cuts the program up again and puts what belongs to one leaf
into a call of its own, which XLA runs as a whole. Leaves that are treated alike share one called program, which also
spares the compiler work.

The cut: a *large* value has at least ``LARGE`` entries, all others are *small* (counts, rates, norms). Equations
that pass large values to each other belong to one *strand*. A strand waits for a small value made of large ones,
such as the norm of all gradients: equations are on *level* 0 that wait for none, on level 1 that wait for one
of level 0, and so on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.sharding import Sharding

from purenets.optim.apply import apply_updates
from purenets.optim.base import GradientTransformation, OptState, Params, Updates

__all__ = ["LARGE", "leaf_by_leaf", "update_params"]

LARGE = 2**15
"""From how many entries on a leaf gets a call of its own.

Smaller ones stay in the cache anyway, and a call keeps XLA from making one kernel of the end of the backward pass and
the beginning of the update.
"""


def update_params(
    optimizer: GradientTransformation, grads: Updates, opt_state: OptState, params: Params, **extra: Any
) -> tuple[Params, OptState]:
    """The params and the optimizer state after one update, computed leaf by leaf.

    The same as ``update`` and :func:`~purenets.optim.apply.apply_updates` after it, for any optimizer of optax's
    protocol, and faster on CPU inside ``jax.jit``.

    Args:
        optimizer: ours, optax's or your own.
        grads: the gradients, like ``params``.
        opt_state: the state that ``optimizer.init`` or the update before returned.
        params: what is optimized.
        **extra: what the optimizer wants besides, such as ``value=loss``.

    Raises:
        ValueError: the trees or the shapes do not agree, with the path of the leaf.

    >>> import jax.numpy as jnp
    >>> from purenets import optim
    >>> optimizer = optim.sgd(0.5)
    >>> params = {"w": jnp.ones(2)}
    >>> params, state = optim.update_params(optimizer, {"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> params
    {'w': Array([0.5, 0.5], dtype=float32)}
    """

    def whole(grads: Updates, opt_state: OptState, params: Params) -> tuple[Params, OptState]:
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        return apply_updates(params, updates), opt_state

    return leaf_by_leaf(whole)(grads, opt_state, params)


def leaf_by_leaf(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of trees, whose program runs leaf after leaf on CPU.

    Elsewhere, where XLA makes one kernel of what belongs to a leaf, and outside of ``jax.jit``, where nothing is
    compiled as a whole, it is the function itself.
    """

    def ordered(*args: Any) -> Any:
        leaves = jax.tree.leaves(args)
        if jax.default_backend() != "cpu" or not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return function(*args)
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        run = (
            jaxpr_as_fun(program)
            if program.effects
            else partial(_run, program.consts, _opened(program.jaxpr))
        )
        return jax.tree.unflatten(jax.tree.structure(shapes), run(*leaves))

    return ordered


def _run(consts: Sequence[Any], jaxpr: Jaxpr, *args: Any) -> list[Any]:
    """What the program returns, computed piece after piece."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for piece in _pieces(jaxpr):
        inputs = [values[v] for v in piece.invars]
        if _worth_a_call(piece):
            with set_xla_metadata(inlineable="false"):
                outputs = _call(_Alike(piece, _likeness(piece)))(*inputs)
        else:
            outputs = jaxpr_as_fun(ClosedJaxpr(piece, ()))(*inputs)
        values |= zip(_variables(piece.outvars), outputs, strict=True)
    return [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


@dataclass(frozen=True)
class _Alike:
    """A piece that is equal to all that compute the same."""

    piece: Jaxpr = field(compare=False)
    likeness: Hashable


@lru_cache(512)
def _call(like: _Alike) -> Callable[..., Any]:
    """One function for all that are alike, in which no call inside is marked as one that must stay."""

    def one_leaf(*args: Any) -> Any:
        with set_xla_metadata(inlineable=None):
            return jaxpr_as_fun(ClosedJaxpr(like.piece, ()))(*args)

    return jax.jit(one_leaf)


def _opened(jaxpr: Jaxpr) -> Jaxpr:
    """The program with the equations of jitted functions in place of their calls."""
    if not any(eqn.primitive.name == "jit" and any(map(_is_large, eqn.outvars)) for eqn in jaxpr.eqns):
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


def _pieces(jaxpr: Jaxpr) -> list[Jaxpr]:
    """The program in pieces, in an order in which they can run: by level, and on each the small values first."""
    large = [[v for v in [*_variables(eqn.invars), *eqn.outvars] if _is_large(v)] for eqn in jaxpr.eqns]
    strands = _Strands()
    for values in large:
        strands.join(values)
    found: dict[Any, list[JaxprEqn]] = defaultdict(list)
    for eqn, values, level in zip(jaxpr.eqns, large, _levels(jaxpr, large), strict=True):
        found[level, bool(values), strands.number(values[0]) if values else 0].append(eqn)
    return _closed(jaxpr, [found[place] for place in sorted(found)])


def _levels(jaxpr: Jaxpr, large: list[list[Var]]) -> list[int]:
    """The level of each equation: the last on which those that use its values can still have them.

    So what is cheap to make, such as a decayed average, waits for what it goes into.
    """
    first: dict[Var, int] = {}
    for eqn, values in zip(jaxpr.eqns, large, strict=True):
        own = max((first.get(v, 0) for v in _variables(eqn.invars)), default=0)
        first |= {v: own + _is_step(values, v) for v in eqn.outvars}
    last = dict.fromkeys(_variables(jaxpr.outvars), max(first.values(), default=0))
    levels = []
    for eqn, values in zip(reversed(jaxpr.eqns), reversed(large), strict=True):
        own = min((last[v] - _is_step(values, v) for v in eqn.outvars if v in last), default=0)
        last |= {v: min(own, last.get(v, own)) for v in _variables(eqn.invars)}
        levels.append(own)
    return levels[::-1]


def _is_step(large: list[Var], made: Var) -> bool:
    """Whether an equation between these large values makes a small one, which is there on the next level."""
    return bool(large) and not _is_large(made)


def _closed(jaxpr: Jaxpr, pieces: list[list[JaxprEqn]]) -> list[Jaxpr]:
    """Each list of equations as a program from the values it needs to those that are needed of it later."""
    later, programs = set(_variables(jaxpr.outvars)), []
    for eqns in reversed(pieces):
        made = [v for eqn in eqns for v in eqn.outvars]
        used = dict.fromkeys(v for eqn in eqns for v in _variables(eqn.invars))
        needed = [v for v in made if v in later]
        given = [v for v in used if v not in set(made)]
        programs.append(jaxpr.replace(constvars=[], invars=given, outvars=needed, eqns=eqns))
        later |= set(used)
    return programs[::-1]


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
        """That of its set, in the order in which sets are asked for."""
        return self._numbers.setdefault(self._root(value), len(self._numbers))


def _worth_a_call(piece: Jaxpr) -> bool:
    """Whether it makes several large values, without loops, branches, and divisions by small values.

    Such a division XLA makes a product with the inverse, which a called program would compute once more for each leaf.
    """
    for eqn in piece.eqns:
        name, inputs = eqn.primitive.name, _variables(eqn.invars)
        if name in ("cond", "scan", "while") or (name == "div" and not all(map(_is_large, inputs))):
            return False
    return sum(map(_is_large, piece.outvars)) > 1


def _likeness(piece: Jaxpr) -> Hashable:
    """What is equal for two pieces only if they compute the same from inputs of the same shapes.

    What cannot be hashed is told apart by its identity, which lasts as long as the piece that has it.
    """
    number: dict[Var, int] = {}

    def of(v: Any) -> Hashable:
        value = np.asarray(v.val).tobytes() if isinstance(v, Literal) else number.setdefault(v, len(number))
        return value, v.aval

    def same(value: Any) -> Hashable:
        return value if isinstance(value, Hashable) else id(value)

    rows = []
    for eqn in piece.eqns:
        params = tuple((name, same(value)) for name, value in sorted(eqn.params.items()))
        rows.append((eqn.primitive, params, tuple(map(of, eqn.invars)), tuple(map(of, eqn.outvars))))
    return tuple(rows), tuple(map(of, piece.invars)), tuple(map(of, piece.outvars))


def _variables(atoms: Iterable[Any]) -> list[Var]:
    return [v for v in atoms if not isinstance(v, Literal)]


def _is_large(v: Any) -> bool:
    return bool(v.aval.size >= LARGE)
