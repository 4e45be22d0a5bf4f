"""A subject against its reference on the same gradients: the one comparison that all levels share.

The reference is run once more on gradients, parameters, numbers and states moved by one unit in the last place, which
measures how well anybody can be asked to agree (see :mod:`purenets.conform.compare`). What the reference gave is kept
for the next subject that is compared with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purenets.conform.compare import (
    NOISE_FACTOR,
    Divergence,
    first_divergence,
    jitter,
    noise_of,
    pooled,
    rounded_with,
    tolerance_for,
)
from purenets.conform.report import Fail, Note, Skip, one_line
from purenets.conform.runs import Run, run, traceable
from purenets.conform.subject import Subject
from purenets.conform.widened import NUDGES, Widened
from purenets.paths import flatten

__all__ = ["Case", "compare_runs", "forget", "kept"]

COPIES = 2
KEPT = 80


class Case(NamedTuple):
    """What both sides are run on."""

    token: str
    """Names the gradients, which follow from it."""
    grads: Any
    params: Any
    which: Sequence[int]
    rows: Sequence[Mapping[str, float]]
    labels: Sequence[str]
    static: Mapping[str, Any] = {}
    jumps: Sequence[int] | None = None
    with_params: bool = True
    concrete: bool = False


class Expected(NamedTuple):
    """What the reference gives, and its noise."""

    run: Run
    noise: dict[str, np.ndarray]
    """For updates by path, for fields by key behind a ``:``."""


_kept: OrderedDict[Any, tuple[Subject, Any]] = OrderedDict()


def forget() -> None:
    """Drop what references gave."""
    _kept.clear()


def kept(reference: Subject, key: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` makes of the reference, made once; the key says all that it depends on beside."""
    key = (id(reference.factory), reference.name, str(reference.held), key)
    if key not in _kept:
        # The subject is kept too, so that its id is not used again.
        _kept[key] = (reference, make())
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key][1]


def _run(subject: Subject, case: Case, exact: int | None = None, **changes: Any) -> Run:
    case = case._replace(**changes)
    return run(
        subject, case.static, case.rows, case.which, case.grads, case.params,
        jumps=case.jumps, with_params=case.with_params, concrete=case.concrete, exact=exact,
    )  # fmt: skip


def _with_moved(reference: Subject, case: Case) -> Expected:
    """The reference on the case, and on copies of it with gradients and numbers moved by one last place."""
    rng = np.random.default_rng(7)
    dtype = jax.tree.leaves(case.grads)[0].dtype
    in_numpy = reference.build(case.static).numpy
    # As NumPy scalars an oracle computes with them in their own precision.
    kind = dtype.type if in_numpy else float
    move = lambda row: {name: kind(jitter(np.array(x, dtype), rng)) for name, x in row.items()}
    rows = [dict(row) for row in case.rows for _ in range(COPIES)]
    apart = False
    if in_numpy or (dtype == np.float32 and case.concrete):
        # In float32 the rounding of a hyperparameter is seen too, where it is a hair below one.
        rows = [{**_floats(reference, case.static), **row} for row in rows]
        apart = not in_numpy and traceable(reference, case.static, rows[0])
        rows = rows if in_numpy or apart else [dict(row) for row in case.rows for _ in range(COPIES)]
    if in_numpy or apart or (not case.concrete and traceable(reference, case.static, rows[0])):
        rows = [move(row) for row in rows]
    sequences = jax.tree.leaves(case.grads)[0].shape[0]
    which = [w + copy * sequences for w in case.which for copy in range(COPIES)]
    jumps = None if case.jumps is None else [j for j in case.jumps for _ in range(COPIES)]
    moved = jax.tree.map(lambda g: np.concatenate([jitter(g, rng) for _ in range(COPIES)]), case.grads)
    again = jax.tree.map(lambda p: np.concatenate([jitter(p, rng) for _ in range(COPIES)]), case.params)
    n = len(case.rows)
    if apart:
        base = _run(reference, case)
        copies = _run(
            reference, case, grads=moved, params=again, rows=rows, which=which, jumps=jumps, concrete=False,
            exact=0,
        )  # fmt: skip
        join = lambda a, b: {k: np.concatenate([x, b[k]]) for k, x in a.items()}
        whole = Run(join(base.updates, copies.updates), join(base.fields, copies.fields), False)
    else:
        both = lambda a, b: jax.tree.map(lambda x, y: np.concatenate([x, y]), a, b)
        whole = _run(
            reference, case, grads=both(case.grads, moved), params=both(case.params, again),
            rows=[*case.rows, *rows], which=[*case.which, *(w + sequences for w in which)],
            jumps=None if jumps is None else [*(case.jumps or ()), *jumps], exact=n,
        )  # fmt: skip
    fold = lambda x: np.moveaxis(x[n:].reshape(n, COPIES, *x.shape[1:]), 1, 0)
    split = lambda x: (x[:n], noise_of(x[:n], fold(x)))
    updates = {path: split(x) for path, x in whole.updates.items()}
    fields = {name: split(x) for name, x in whole.fields.items()}
    base = Run({p: x for p, (x, _) in updates.items()}, {k: x for k, (x, _) in fields.items()}, whole.traced)
    noise = pooled(base.updates, {p: x for p, (_, x) in updates.items()})
    own = _of_differences(base, case)
    noise = {path: x + own.get(path, 0.0) for path, x in noise.items()}
    return Expected(base, noise | {":" + k: x for k, (_, x) in fields.items()})


def _of_differences(base: Run, case: Case) -> dict[str, np.ndarray]:
    """What the updates cost where they are differences of two params."""
    if not case.with_params:
        return {}
    params = {path: np.asarray(p)[list(case.which)] for path, p in flatten(case.params).items()}
    return {path: x / NOISE_FACTOR for path, x in rounded_with(base.updates, params).items()}


def _floats(subject: Subject, static: Mapping[str, Any]) -> dict[str, float]:
    """Every hyperparameter that is a float, under these settings."""
    values = {**{name: subject.default(name) for name in subject.parameters}, **static}
    return {name: x for name, x in values.items() if isinstance(x, float)}


def _expected(reference: Subject, case: Case) -> Expected | str:
    """What the reference gives, or why it gives nothing."""

    def make() -> Expected | str:
        try:
            return _with_moved(reference, case)
        except Exception as error:  # a reference may not run under every setting
            return one_line(error)

    parts = (case.token, str(dict(case.static)), str(list(case.rows)), str(list(case.which)))
    return kept(reference, (*parts, str(case.jumps), case.with_params, case.concrete), make)


def compare_runs(
    subject: Subject,
    reference: Subject,
    case: Case,
    relative: float | None = None,
    unasked: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> str | None:
    """Compare updates and named state fields; the first step at which they part is the answer.

    Args:
        subject: what is checked.
        reference: what it should equal.
        case: what both are run on.
        relative: a tolerance instead of the usual one.
        unasked: of ours and theirs ``[rows, steps, ...]``, where nothing is asked.

    Raises:
        Fail: they part; or the subject raises where the reference does not.
        Skip: the reference raises.
        Note: neither side gives a finite number.
    """
    expected = _expected(reference, case)
    if isinstance(expected, str):
        raise Skip(f"the reference does not run: {expected}")
    try:
        ours = _run(subject, case)
    except Exception as error:
        if not case.with_params:
            raise Skip(f"needs the parameters: {one_line(error, 60)}") from None
        raise Fail(f"raised {one_line(error)}") from None
    theirs = expected.run
    own = [_of_constants(subject, case, ours), _of_differences(ours, case)]
    steps = next(iter(theirs.updates.values())).shape[1] if theirs.updates else 0
    dtype = jax.tree.leaves(case.grads)[0].dtype
    relative = relative or tolerance_for(_narrowest(theirs.fields, dtype), steps)
    finite = all(np.isfinite(np.asarray(g, np.float64)).all() for g in jax.tree.leaves(case.grads))

    def part(what: str, a: np.ndarray, b: np.ndarray, noise: np.ndarray) -> Divergence | None:
        noise = noise + sum(costs.get(what, 0.0) for costs in own)
        if finite:
            # Nobody need share a NaN that the reference makes of finite gradients under odd settings.
            noise = np.where(np.isnan(b), np.inf, noise)
        noise = noise if unasked is None else np.where(unasked(a, b), np.inf, noise)
        return first_divergence(what, a, b, noise, relative, products=products)

    products = subject.has_products or reference.has_products
    found = [part(path, ours.updates[path], b, expected.noise[path]) for path, b in theirs.updates.items()]
    for name in theirs.fields.keys() & ours.fields.keys():
        a, b = ours.fields[name], theirs.fields[name]
        if a.shape == b.shape and b.dtype.kind in "fiu" and a.dtype.kind in "fiu":
            plain = "state " + name.split(".", 1)[-1]
            found.append(part(plain, a, b, expected.noise[":" + name]))
    apart = [d for d in found if d is not None]
    if apart:
        # Of places that part at the same step the update is told rather than the state.
        first = min(apart, key=lambda d: (d.step, d.what.startswith("state ")))
        raise Fail(_told(first, case))
    if theirs.updates and not any(np.isfinite(x).any() for x in theirs.updates.values() if x.size):
        raise Note("the reference gives no finite number here")
    return None


def _of_constants(subject: Subject, case: Case, base: Run) -> dict[str, np.ndarray]:
    """What constants of many digits, which the subject has in float32, may have cost the updates."""
    if not isinstance(subject, Widened) or not subject.has_rounded_constants:
        return {}
    runs = [_run(subject.nudged(n + 1), case).updates for n in range(NUDGES)]
    # Known is the size of an error and not only that of a rounding: a few times it is enough.
    share = 4 / NOISE_FACTOR
    return {path: share * noise_of(x, np.stack([r[path] for r in runs])) for path, x in base.updates.items()}


def _narrowest(fields: Mapping[str, np.ndarray], dtype: Any) -> Any:
    """The dtype of the gradients, or float32 where the reference itself keeps arrays in it."""
    kept_narrow = any(x.dtype == np.float32 and x.ndim > 2 for x in fields.values())
    return np.dtype(np.float32) if kept_narrow and dtype == np.float64 else dtype


def _told(first: Divergence, case: Case) -> str:
    label = case.labels[first.row]
    return str(first) if label == "defaults" else f"with {label}: {first}"
