"""L1, stability: what an optimizer must keep while it runs.

The state that comes out has the structure, shapes, dtypes and strength of type of the state that went in, for
every dtype, so that it is a legal ``lax.scan`` carry and the second call compiles nothing. The updates have
the dtype of the gradients. Buffers may be donated. Inputs are left alone. Counters advance by one, are wide
enough, and stop at their largest value and not beyond it.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.fields import counters
from purenets.conform.protocol import same_form
from purenets.conform.report import Fail, Note, Question, Skip, Soft, one_line
from purenets.conform.runs import counts_updates
from purenets.conform.sequences import SMALL, sequence, shapes_for
from purenets.conform.subject import Subject
from purenets.paths import path_of, unflatten

__all__ = ["questions"]

DTYPES = ("float32", "bfloat16", "float16", "float64")


def questions(subject: Subject) -> Iterator[tuple[str, Question]]:
    """What L1 asks."""
    for dtype in DTYPES:
        yield f"state keeps its form, {dtype}", lambda dtype=dtype: _keeps_form(subject, dtype)  # type: ignore[misc]
    yield "mixed dtypes in one tree", lambda: _mixed(subject)
    yield "inputs are left alone", lambda: _inputs_left_alone(subject)
    yield "counters advance by one", lambda: _counters_advance(subject)
    yield "counters stop at their largest value", lambda: _counters_stop(subject)
    yield "counters in half precision", lambda: _counters_in_half(subject)
    yield "no second trace, donated", lambda: _no_second_trace(subject)


def _weak(tree: Any) -> list[str]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [path_of(path) for path, x in flat if getattr(x, "weak_type", False)]


def _keeps_form(subject: Subject, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        tx = subject.build()
        tree = {
            path: jax.ShapeDtypeStruct(shape, dtype) for path, shape in shapes_for(SMALL, subject).items()
        }
        params = unflatten(tree)
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(lambda s, p: subject.step(tx, p, s, p), state, params)
        same_form("the state after an update", state, after)
        for when, tree in (("from init", state), ("after an update", after)):
            if weak := _weak(tree):
                raise Fail(f"the state {when} is weakly typed at {weak[0]!r}: give the number a dtype")
        try:
            same_form("the updates", params, updates)
        except Fail as error:
            # Who keeps a dtype of its own, as optax's accumulators and injected numbers do, gives updates in it.
            raise (Soft if subject.keeps(dtype, scalars=True) - {dtype} else Fail)(str(error)) from None


def _mixed(subject: Subject) -> None:
    tx = subject.build()
    params = {"half": jnp.ones((4, 3), jnp.bfloat16), "single": jnp.ones(3, jnp.float32)}
    try:
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(lambda s, p: subject.step(tx, p, s, p), state, params)
        same_form("the updates", params, updates)
        same_form("the state after an update", state, after)
    except Exception as error:
        # A number that belongs to the whole tree, such as a norm, has one dtype, which then spreads.
        raise Soft(one_line(error)) from None


def _data(subject: Subject, steps: int) -> tuple[list[Any], Any]:
    run = sequence(3, shapes_for(SMALL, subject), steps, np.float32, kinds=("normal",))
    at = lambda tree, t: jax.tree.map(lambda x: np.array(x[t]), tree)
    return [at(run.grads, t) for t in range(steps)], at(run.params, 0)


def _no_second_trace(subject: Subject) -> None:
    tx = subject.build()
    grads, params = _data(subject, 3)
    traces = 0

    def step(params: Any, state: Any, grads: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, state = subject.step(tx, grads, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    compiled = jax.jit(step, donate_argnums=(1,))
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    try:
        for g in grads:
            params, state = compiled(params, state, jax.tree.map(jnp.asarray, g))
    except Exception as error:
        if "donate" in str(error):
            raise Soft(
                "the state cannot be donated: init puts one array into it twice, or the parameters themselves"
            ) from None
        raise
    if any(getattr(x, "is_deleted", bool)() for x in jax.tree.leaves((params, state))):
        raise Fail("a buffer of the result was donated and is gone")
    if traces > 1:
        raise Fail(f"three updates traced {traces} times: what init returns is not what update returns")


def _inputs_left_alone(subject: Subject) -> None:
    tx = subject.build()
    (first, *_), params = _data(subject, 3)
    state = tx.init(params)
    try:
        _untouched(subject, tx, first, state, params)
    except Fail:
        raise
    except Exception:  # NumPy arrays are not JAX arrays; dicts and their entries can be watched all the same
        as_jax = lambda tree: jax.tree.map(jnp.asarray, tree)
        _untouched(subject, tx, as_jax(first), tx.init(as_jax(params)), as_jax(params))


def _untouched(subject: Subject, tx: Any, grads: Any, state: Any, params: Any) -> None:
    named = {"the gradients": grads, "the state": state, "the parameters": params}
    before = {
        what: (jax.tree.structure(tree), [np.array(x, copy=True) for x in _arrays(tree)])
        for what, tree in named.items()
    }
    shallow = copy.copy(grads)
    subject.step(tx, grads, state, params)
    for what, tree in named.items():
        structure, values = before[what]
        if operator.ne(jax.tree.structure(tree), structure) or (
            what == "the gradients" and list(tree) != list(shallow)
        ):
            raise Fail(f"update changed the structure of {what} in place")
        for old, new in zip(values, _arrays(tree), strict=True):
            if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
                raise Fail(f"update changed the numbers of {what} in place")


def _arrays(tree: Any) -> list[Any]:
    plain = lambda x: not jnp.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key)
    return [np.asarray(x) for x in jax.tree.leaves(tree) if plain(x)]


def _counting(subject: Subject, steps: int = 3) -> tuple[Any, list[Any], dict[str, list[Any]]]:
    """The optimizer, its states over a few updates, and for each counter its values."""
    tx = subject.build()
    states, flat = _walked(subject, tx, *jax.tree.map(jnp.asarray, _data(subject, steps)))
    found = {path: [f[path] for f in flat] for path in counters(states[0])}
    for path, first in flat[0].items():
        whole = jnp.ndim(first) == 0 and jnp.issubdtype(getattr(first, "dtype", jnp.float32), jnp.integer)
        if whole and [int(f[path]) - int(first) for f in flat] == list(range(steps + 1)):
            found[path] = [f[path] for f in flat]
    if not found:
        raise Skip("the state has no counter")
    return tx, states, found


def _walked(
    subject: Subject, tx: Any, grads: list[Any], params: Any
) -> tuple[list[Any], list[dict[str, Any]]]:
    """The first state and those after each update, whole and by path."""
    states = [tx.init(params)]
    for g in grads:
        states.append(subject.step(tx, g, states[-1], params)[1])
    return states, [{path_of(p): x for p, x in jax.tree_util.tree_flatten_with_path(s)[0]} for s in states]


def _rises(values: list[Any]) -> bool:
    """Whether a counter goes up throughout; one that goes round counts something else."""
    return all(float(b) > float(a) for a, b in itertools.pairwise(values))


def _counters_advance(subject: Subject) -> str:
    _, _, found = _counting(subject)
    for path, values in found.items():
        seen = [float(v) for v in values]
        if [v - seen[0] for v in seen] != list(range(len(seen))):
            raise (Fail if _rises(values) else Soft)(f"{path!r} went {seen} over three updates")
        if seen[0] not in (0.0, 1.0):
            raise Fail(f"{path!r} starts at {seen[0]:g}")
    return ", ".join(found)


def _counters_stop(subject: Subject) -> None:
    tx, states, found = _counting(subject)
    grads, params = jax.tree.map(jnp.asarray, _data(subject, 3))
    told = []
    for path, values in found.items():
        if not _rises(values):
            continue
        dtype = jnp.result_type(values[0])
        if not jnp.issubdtype(dtype, jnp.integer):
            exact = 2 ** (jnp.finfo(dtype).nmant + 1)
            text = f"{path!r} is {dtype}, in which one more is no more after {exact} updates"
            if exact < 2**20:
                raise Fail(text)
            told.append(text)
            continue
        if jnp.iinfo(dtype).bits < 32:
            raise Fail(f"{path!r} is {dtype}, which ends after {jnp.iinfo(dtype).max} updates")
        top = jnp.iinfo(dtype).max
        at_top = jax.tree_util.tree_map_with_path(
            lambda p, x, path=path, top=top: jnp.full_like(x, top) if path_of(p) == path else x, states[-1]
        )
        after = subject.step(tx, grads[0], at_top, params)[1]
        left = {path_of(p): x for p, x in jax.tree_util.tree_flatten_with_path(after)[0]}[path]
        if int(left) < top and counts_updates(subject, {}).get(path, True):
            # Nobody makes so many updates, so it is told and not failed.
            told.append(f"{path!r} goes from {top} to {int(left)}: count with a saturating increment")
    if told:
        raise Note("; ".join(told))


def _counters_in_half(subject: Subject) -> None:
    """No number that counts updates is kept in the dtype of bfloat16 parameters, where 256 + 1 is 256."""
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), _data(subject, 3))
    _, flat = _walked(subject, subject.build(), *half)
    for path, first in flat[0].items():
        if getattr(first, "dtype", None) == jnp.bfloat16 and jnp.ndim(first) == 0:
            values = [float(f[path]) for f in flat]
            if all(b == a + 1 for a, b in itertools.pairwise(values)):
                raise Fail(f"{path!r} counts updates in bfloat16, which goes no further than 256")
