"""An update and its application as one program for each leaf, so that a leaf is read from memory once.

Written for whole trees, ``optimizer.update`` and ``apply_updates`` become one long program in which XLA's CPU backend
computes the new state of *all* leaves before the new params of any. Until it comes back to a leaf, that leaf has left
the cache, and is read a second time. :func:`leaf_by_leaf` cuts the program up again
(:mod:`purenets.optim.pieces`) and puts what belongs to a leaf, or to a few that are treated alike, into a call of its
own, which XLA runs as a whole. Calls that compute the same share one program, which also spares the compiler work.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from purenets.optim.apply import apply_updates
from purenets.optim.base import GradientTransformation, OptState, Params, Updates
from purenets.optim.pieces import Piece, entries, joined, levels_of, likeness, opened, variables
from purenets.programs import program_of

__all__ = ["LARGE", "leaf_by_leaf", "update_params"]

LARGE = 2**15
"""From how many entries on a leaf gets into a call.

Smaller ones stay in the cache anyway, and a call keeps XLA from making one kernel of the end of the backward pass and
the beginning of the update.
"""

_TOGETHER = 420_000
"""How many entries one call may read: few enough to be still in the cache when they are needed again."""

_IN_ORDER = 7
"""How many arrays may be made in one call: from eight kernels on XLA's runtime follows an order of its own."""

_MANY = 9
"""From how many alike calls on they are put into lots, which spares JAX to make code of each."""


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
        leaves, structure = jax.tree.flatten(args)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        if jax.default_backend() != "cpu" or not traced or all(jnp.size(leaf) < LARGE for leaf in leaves):
            return function(*args)
        made = []

        def flat(*leaves: Any) -> list[Any]:
            results, tree = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
            made.append(tree)
            return results

        program = program_of(flat, [jax.typeof(leaf) for leaf in leaves])
        if not program.effects:
            program = ClosedJaxpr(_cut(opened(program.jaxpr, LARGE)), program.consts)
        return jax.tree.unflatten(made[0], jaxpr_as_fun(program)(*leaves))

    return ordered


def _cut(jaxpr: Jaxpr) -> Jaxpr:
    """The same program, with calls in place of the equations of large leaves."""
    eqns: list[JaxprEqn] = []
    for small, strands in levels_of(jaxpr, LARGE):
        alike: dict[Hashable, list[Piece]] = defaultdict(list)
        for strand in strands:
            alike[likeness(strand)].append(strand)
        worth = {like: pieces for like, pieces in alike.items() if _worth_a_call(pieces[0])}
        rest = [*small, *(piece for like, pieces in alike.items() if like not in worth for piece in pieces)]
        calls = _bundled(worth, jaxpr, _in_cache, _call)
        many = {like: calls.pop(like) for like, same in [*calls.items()] if len(same) >= _MANY}
        lots = _bundled(many, jaxpr, _in_a_lot, _lot)
        eqns += [eqn for piece in chain(rest, *calls.values(), *lots.values()) for eqn in piece.eqns]
    return jaxpr.replace(eqns=eqns)


def _in_cache(pieces: list[Piece]) -> int:
    """How many alike leaves one call may work on."""
    read, written = sum(map(entries, pieces[0].invars)), len(pieces[0].outvars)
    return max(1, min(_IN_ORDER // written, _TOGETHER // max(1, read)))


def _in_a_lot(calls: list[Piece]) -> int:
    """How many alike calls to put into a lot: as many as there will be lots."""
    return math.isqrt(len(calls))


def _bundled(
    alike: dict[Hashable, list[Piece]],
    whole: Jaxpr,
    most: Callable[[list[Piece]], int],
    one: Callable[[_Alike], JaxprEqn],
) -> dict[Hashable, list[Piece]]:
    """As many alike pieces in one equation as may be, or nearly; what computes the same is of one program."""
    bundles: dict[Hashable, list[Piece]] = {}
    for like, pieces in alike.items():
        made: dict[tuple[int, ...], tuple[JaxprEqn, list[Piece]]] = {}
        size = math.ceil(len(pieces) / math.ceil(len(pieces) / most(pieces)))
        for start in range(0, len(pieces), size):
            some = pieces[start : start + size]
            bundle = joined(some)
            place = {v: at for at, v in enumerate(bundle.invars)}
            shared = tuple(place[v] for piece in some for v in piece.invars)
            if shared not in made:
                part = whole.replace(
                    constvars=[], invars=bundle.invars, outvars=bundle.outvars, eqns=bundle.eqns
                )
                made[shared] = one(_Alike(ClosedJaxpr(part, ()), (like, shared))), []
            eqn, done = made[shared]
            eqn = eqn.replace(invars=[*bundle.invars], outvars=bundle.outvars)
            done.append(Piece([eqn], bundle.invars, bundle.outvars))
        bundles |= {(like, shared): done for shared, (_, done) in made.items()}
    return bundles


@dataclass(frozen=True)
class _Alike:
    """A program that is equal to all that compute the same."""

    program: ClosedJaxpr = field(compare=False)
    likeness: Hashable


def _lot(like: _Alike) -> JaxprEqn:
    """An equation that JAX dissolves when it makes code of it, and makes code of once for all that are alike.

    That is what it does with one of :func:`jax.checkpoint`, which keeps everything here, and does not with a call.
    """
    empty = _empty_lot()
    return empty.replace(params={**empty.params, "jaxpr": like.program.jaxpr})


@cache
def _empty_lot() -> JaxprEqn:
    everything = jax.checkpoint_policies.everything_saveable
    lot = jax.checkpoint(lambda x: x, prevent_cse=False, policy=everything)
    (eqn,) = jax.make_jaxpr(lot)(0.0).eqns
    return eqn


@lru_cache(512)
def _call(like: _Alike) -> JaxprEqn:
    """The call of a program that is to stay one, in which no call inside is marked so."""

    @jax.jit
    def some_leaves(*args: Any) -> Any:
        with set_xla_metadata(inlineable=None):
            return jaxpr_as_fun(like.program)(*args)

    with set_xla_metadata(inlineable="false"):
        (eqn,) = program_of(some_leaves, like.program.in_avals).jaxpr.eqns
    return eqn


def _worth_a_call(piece: Piece) -> bool:
    """Whether it makes several large values, without loops, branches, and divisions by small values.

    Such a division XLA makes a product with the inverse, which a called program would compute once more for each leaf.
    """
    for eqn in piece.eqns:
        name, inputs = eqn.primitive.name, variables(eqn.invars)
        if name in ("cond", "scan", "while") or (
            name == "div" and not all(entries(v) >= LARGE for v in inputs)
        ):
            return False
    return sum(entries(v) >= LARGE for v in piece.outvars) > 1
