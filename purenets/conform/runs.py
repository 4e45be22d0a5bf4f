"""Running an optimizer over many gradient sequences and settings in one compiled program.

One program is a scan over time of a vmap over *rows*; a row is a choice of numbers and of a sequence. Numbers
are traced where the factory allows it; a factory that looks at the value of a number is run row by row.
Optimizers that compute in NumPy are run in a plain loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.fields import named_leaves
from purenets.conform.subject import Subject, Transform
from purenets.paths import path_of

__all__ = ["Run", "counts_updates", "fast_jit", "run", "take", "traceable"]

COUNTED = 500


class Run(NamedTuple):
    """What came out of a run, all arrays ``[rows, steps, ...]``."""

    updates: dict[str, np.ndarray]
    fields: dict[str, np.ndarray]
    traced: bool
    """Whether the numbers were traced."""


@lru_cache(maxsize=1)
def _fast_options() -> dict[str, Any]:
    """Compiler options that make compiling cheap, as far as this version of XLA knows them."""
    options: dict[str, Any] = {}
    if jax.default_backend() != "cpu":
        return options
    for name, value in (("xla_backend_optimization_level", 0), ("xla_cpu_use_fusion_emitters", False)):
        try:
            jax.jit(lambda x: x + 1, compiler_options={**options, name: value}).lower(1.0).compile()
        except Exception:  # an unknown option; compiling takes longer without it, and that is all
            continue
        options[name] = value
    return options


def fast_jit(fn: Any, **options: Any) -> Any:
    """``jax.jit`` that compiles in a fifth of the time on CPU, for programs that run once."""
    return jax.jit(fn, compiler_options=_fast_options(), **options)


def take(tree: Any, index: Any) -> Any:
    """Every leaf at one place of its first axis."""
    return jax.tree.map(lambda x: x[index], tree)


def traceable(subject: Subject, static: Mapping[str, Any], numbers: Mapping[str, float]) -> bool:
    """Whether the factory takes these numbers as traced values, and its optimizer runs with them."""

    def once(numbers: Mapping[str, Any], tree: Any) -> Any:
        tx = subject.build({**static, **numbers})
        return subject.step(tx, tree, tx.init(tree), tree)[0]

    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    try:
        jax.eval_shape(once, {name: jnp.asarray(float(x)) for name, x in numbers.items()}, tree)
    except Exception:  # if it is not for being traced, the run itself will raise the same again
        return False
    return True


def run(
    subject: Subject,
    static: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    which: Sequence[int],
    grads: Any,
    params: Any,
    *,
    jumps: Sequence[int] | None = None,
    with_params: bool = True,
    concrete: bool = False,
    exact: int | None = None,
) -> Run:
    """Run a subject.

    Args:
        subject: whose ``build`` makes the optimizer.
        static: settings for all rows.
        rows: settings that differ between rows, all numbers.
        which: for each row the sequence it runs on.
        grads: gradients, leaves ``[sequences, steps, ...]``.
        params: parameters, likewise; the first ones go to ``init``.
        jumps: for each row how many updates its counters pretend to have made already.
        with_params: whether ``update`` gets the parameters.
        concrete: never trace the numbers.
        exact: how many rows, from the first, are computed as they should be, all by default. Further ones are
            computed as badly as may be: states are moved by one unit in the last place after every update, and an
            optimizer in NumPy computes in the dtype of the gradients and not in float64.
    """
    jumps = list(jumps) if jumps is not None else [0] * len(rows)
    exact = len(rows) if exact is None else exact
    if subject.build(static).numpy:
        return _loop(subject, static, rows, which, grads, params, with_params, exact)
    dtype = jax.tree.leaves(grads)[0].dtype
    keys: list[str] = []

    def one(numbers: Mapping[str, Any], sequence: Any, jump: Any, bad: Any, grads: Any, params: Any) -> Any:
        tx = subject.build({**static, **numbers})
        gs, ps = take(grads, sequence), take(params, sequence)
        state = _jumped(tx.init(take(ps, 0)), jump) if any(jumps) else tx.init(take(ps, 0))

        def body(state: Any, at: Any) -> Any:
            updates, state = subject.step(tx, at[0], state, at[1] if with_params else None)
            found = named_leaves(state)
            keys[:] = list(found)
            if exact < len(rows):
                state = jax.tree.map(lambda x: _shaken(x, at[2], bad), state)
            return state, (updates, list(found.values()))

        steps = np.arange(jax.tree.leaves(gs)[0].shape[0], dtype=np.uint32)
        return jax.lax.scan(body, state, (gs, ps, steps))[1]

    bad = np.arange(len(rows)) >= exact
    if not concrete and traceable(subject, static, rows[0]):
        columns = {name: np.array([row[name] for row in rows], dtype) for name in rows[0]}
        program = fast_jit(jax.vmap(one, (0, 0, 0, 0, None, None)))
        out = program(columns, np.array(which), np.array(jumps, np.int32), bad, grads, params)
        return _gather(out, keys, traced=True)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(tuple(sorted(row.items())), []).append(number)
    pieces = []
    for numbers, members in groups.items():
        program = fast_jit(
            jax.vmap(lambda s, j, b, g, p, n=dict(numbers): one(n, s, j, b, g, p), (0, 0, 0, None, None))
        )
        at = np.array(which)[members], np.array(jumps, np.int32)[members], bad[members]
        pieces.append((members, program(*at, grads, params)))
    order = np.argsort(np.concatenate([members for members, _ in pieces]))
    joined = jax.tree.map(
        lambda *xs: np.concatenate([np.asarray(x) for x in xs])[order], *(p for _, p in pieces)
    )
    return _gather(joined, keys, traced=not rows[0])


def _gather(out: Any, keys: list[str], traced: bool) -> Run:
    updates, fields = out
    flat = jax.tree_util.tree_flatten_with_path(updates)[0]
    return Run(
        {path_of(path): np.asarray(x) for path, x in flat},
        {key: np.asarray(x) for key, x in zip(keys, fields, strict=True)},
        traced,
    )


def _shaken(x: Any, step: Any, wanted: Any) -> Any:
    """Every number that is no integer moved by one unit in the last place, up or down, where that is wanted."""
    if jnp.result_type(x) not in (np.float32, np.float64):
        return x
    x = jnp.asarray(x)
    place = jnp.arange(x.size, dtype=np.uint32).reshape(x.shape)
    mixed = (place * np.uint32(2_654_435_761) + step * np.uint32(40_503)) ^ (step << 7)
    up = (mixed * np.uint32(2_246_822_519)) >> 31 == 1
    moved = jnp.nextafter(x, jnp.where(up, jnp.inf, -jnp.inf).astype(x.dtype))
    return jnp.where(wanted & (x != jnp.round(x)), moved, x)


def _jumped(state: Any, jump: Any) -> Any:
    """The state with every counter, an integer scalar, moved on by ``jump`` and stopped at its largest value."""

    def move(x: Any) -> Any:
        if jnp.ndim(x) != 0 or not jnp.issubdtype(jnp.result_type(x), jnp.signedinteger):
            return x
        x = jnp.asarray(x)
        top = jnp.iinfo(x.dtype).max
        return jnp.where(x > top - jump, top, x + jump.astype(x.dtype))

    return jax.tree.map(move, state)


def counts_updates(subject: Subject, settings: Mapping[str, Any]) -> dict[str, bool]:
    """For each integer scalar of the state whether it goes up by one at each update, for as long as we look.

    One that starts again, such as the place in a cycle, has no meaning beyond its largest value.
    """
    tx = subject.build(settings)
    params = {"w": jnp.ones((2, 3))}
    whole = lambda state: {
        path_of(path): jnp.asarray(x)
        for path, x in jax.tree_util.tree_flatten_with_path(state)[0]
        if jnp.ndim(x) == 0 and jnp.issubdtype(jnp.result_type(x), jnp.signedinteger)
    }

    def body(state: Any, _: None) -> Any:
        state = subject.step(tx, params, state, params)[1]
        return state, whole(state)

    seen = fast_jit(lambda: jax.lax.scan(body, tx.init(params), length=COUNTED)[1])()
    return {path: bool((np.diff(x) == 1).all()) for path, x in seen.items()}


def _loop(
    subject: Subject,
    static: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    which: Sequence[int],
    grads: Any,
    params: Any,
    with_params: bool,
    exact: int,
) -> Run:
    paths = [path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(grads)[0]]
    gs, ps = jax.tree.leaves(grads), jax.tree.leaves(params)
    out: list[list[np.ndarray]] = [[] for _ in paths]
    for number, (row, sequence) in enumerate(zip(rows, which, strict=True)):
        tx: Transform = subject.build({**static, **row})
        dtype = np.float64 if number < exact else gs[0].dtype
        state = tx.init({path: np.asarray(p[sequence, 0], dtype) for path, p in zip(paths, ps, strict=True)})
        steps: list[dict[str, np.ndarray]] = []
        for t in range(gs[0].shape[1]):
            at = {path: np.asarray(g[sequence, t], dtype) for path, g in zip(paths, gs, strict=True)}
            now = {path: np.asarray(p[sequence, t], dtype) for path, p in zip(paths, ps, strict=True)}
            update, state = tx.update(at, state, now if with_params else None)
            steps.append(update)
        for i, path in enumerate(paths):
            out[i].append(np.stack([step[path] for step in steps]))
    return Run({path: np.stack(columns) for path, columns in zip(paths, out, strict=True)}, {}, True)
