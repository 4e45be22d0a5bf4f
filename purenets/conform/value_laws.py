"""The laws of a layer's numbers: what they may depend on, and in which precision they come.

An example's output in evaluation depends on this example alone. A key that is asked for is used, and once. The
output has the precision of what went in, and in bfloat16 is about what it is in float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.case import Case
from purenets.conform.report import Fail, Skip
from purenets.conform.surroundings import callbacks
from purenets.conform.transforms import agree

__all__ = [
    "bfloat16_is_close",
    "equals_reference",
    "examples_are_apart",
    "keys_are_used_once",
    "keys_matter",
    "no_host_callbacks",
    "params_matter",
    "precision_is_kept",
]


def examples_are_apart(case: Case) -> str:
    """In evaluation the first example alone, and the last, give what they give in the batch."""
    batch = {x.shape[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(case.inputs)}
    if len(batch) != 1 or (n := batch.pop()) < 2:
        raise Skip("the inputs have no common first axis of two or more")
    params, state = case.variables
    whole = case.layer.apply(params, state, *case.inputs, train=False, **case.side)[0]
    if any(jnp.ndim(x) == 0 or x.shape[0] != n for x in jax.tree.leaves(whole)):
        raise Skip("the output has no axis for the examples")
    own = lambda tree, i: jax.tree.map(lambda x: x[i : i + 1] if _has(x, n) else x, tree)
    for i in (0, n - 1):
        alone = case.layer.apply(params, state, *own(case.inputs, i), train=False, **own(case.side, i))[0]
        agree(f"example {i} alone", alone, own(whole, i), 2e-4, floor=1e-6)
    return f"{n} examples"


def _has(x: Any, n: int) -> bool:
    return jnp.ndim(x) > 0 and x.shape[0] == n


def keys_matter(case: Case) -> str:
    """Random params differ from key to key and from each other; training that needs a key depends on it."""
    one, two = case.variables[0], case.layer.init(case.key(9))[0]
    drawn: list[tuple[str, np.ndarray]] = []
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(one)[0], jax.tree.leaves(two), strict=True):
        if not jnp.issubdtype(a.dtype, jnp.floating) or a.size < 4:
            continue
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if len(np.unique(x)) * 2 <= x.size or not np.any(x != y):
            continue
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        for other, z in drawn:
            if z.shape == x.shape and np.array_equal(x, z):
                raise Fail(f"{where} begins with the same numbers as {other}: split the key")
        drawn.append((where, x))
    try:
        case.layer.apply(*case.variables, *case.inputs, train=True, **case.side)
    except Exception:
        pass
    else:
        return f"{len(drawn)} drawn params, no key in training"
    params, state = case.variables
    train = lambda number: case.layer.apply(
        params, state, *case.inputs, key=case.key(number), train=True, **case.side
    )
    first = train(1)
    if all(_same(train(number), first) for number in range(2, 9)):
        raise Fail("training needs a key and gives the same for eight of them")
    return f"{len(drawn)} drawn params, a key in training"


def _plain(x: Any) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x.astype(jnp.float32))


def params_matter(case: Case) -> str:
    """Other numbers in any of the params change the output or the state, in evaluation or in training."""
    params, state = case.variables
    leaves, structure = jax.tree.flatten(params)
    paths = [
        jax.tree_util.keystr(p, simple=True, separator="/")
        for p, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    rng = np.random.default_rng(3)
    base = cache(lambda train: case.call(params, state, *case.inputs, train=train))
    for i, (path, x) in enumerate(zip(paths, leaves, strict=True)):
        if not jnp.issubdtype(x.dtype, jnp.floating) or not x.size:
            continue
        other = x + jnp.asarray(rng.standard_normal(x.shape), x.dtype)
        moved = jax.tree.unflatten(structure, [*leaves[:i], other, *leaves[i + 1 :]])
        if all(_same(case.call(moved, state, *case.inputs, train=t), base(t)) for t in (False, True)):
            raise Fail(f"nothing depends on {path}")
    return f"{len(leaves)} params"


def _same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(_plain(x), _plain(y), equal_nan=True) for x, y in pairs)


def equals_reference(case: Case, reference: Any) -> str:
    """The outputs and states of three steps of training and of evaluation, from params moved from their start."""
    apply = getattr(reference, "apply", reference)
    rng = np.random.default_rng(5)
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    move = lambda x: x + jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype) if is_float(x) else x
    params = jax.tree.map(move, case.variables[0])
    ours = theirs = case.variables[1]
    for t in range(3):
        inputs = jax.tree.map(lambda x, t=t: x * (1 + t) + t if is_float(x) else x, case.inputs)
        call = lambda fn, state, x, t=t: fn(params, state, *x, key=case.key(t), train=True, **case.side)
        a, b = call(case.layer.apply, ours, inputs), call(apply, theirs, inputs)
        agree(f"step {t} of training, against the reference", a, b, 1e-4, floor=1e-6)
        ours, theirs = a[1], b[1]
    evaluate = lambda fn: fn(params, theirs, *case.inputs, key=case.key(), train=False, **case.side)
    agree("evaluation, against the reference", evaluate(case.layer.apply), evaluate(apply), 1e-4, floor=1e-6)
    return "three steps and evaluation"


def keys_are_used_once(case: Case) -> None:
    """No key is used up twice, in ``init`` or in training."""
    with jax.debug_key_reuse(True):
        try:
            params, state = case.layer.init(case.key())
            case.call(params, state, *case.inputs, train=True)
        except jax.errors.KeyReuseError as error:
            raise Fail(f"a key is used twice: {' '.join(str(error).split())[:160]}") from None


def precision_is_kept(case: Case) -> None:
    """With 64 bits enabled, what is float32 stays float32."""
    params, state = case.variables
    if any(_wide(x) for x in jax.tree.leaves((params, state, case.inputs))):
        raise Skip("float64 goes in")
    for train in (False, True):
        with jax.enable_x64(True):
            out = jax.eval_shape(
                lambda p, s, x, train=train: case.call(p, s, *x, train=train), params, state, case.inputs
            )
        for path, x in jax.tree_util.tree_flatten_with_path(out)[0]:
            if _wide(x):
                where = "the output" if path[0].idx == 0 else "the state"
                raise Fail(f"{where} becomes {x.dtype} where 64 bits are enabled: a number has no dtype")


def _wide(x: Any) -> bool:
    return bool(x.dtype == jnp.float64)


def bfloat16_is_close(case: Case) -> str:
    """Params and inputs in bfloat16 give about what the same numbers give in float32."""
    params, _ = case.variables
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    cast = lambda tree, dtype: jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)
    half = cast((params, case.inputs), jnp.bfloat16)
    if not any(is_float(x) for x in jax.tree.leaves(half)):
        raise Skip("no float goes in")
    run = lambda given: case.layer.apply(given[0], case.variables[1], *given[1], train=False, **case.side)[0]
    try:
        out = run(half)
    except Exception as error:
        raise Skip(f"does not take bfloat16: {' '.join(str(error).split())[:80]}") from None
    worst = 0.0
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(run(cast(half, jnp.float32))), strict=True):
        if not is_float(b) or not b.size:
            continue
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.max(np.abs(y), where=np.isfinite(y), initial=0.0)
        # Half of the entries may be elsewhere, where rounding chose another branch.
        off = (
            float(np.median(np.abs(x - y)[np.isfinite(y)])) / max(scale, 1e-30)
            if np.isfinite(y).any()
            else 0.0
        )
        worst = max(worst, off)
    if not worst <= 0.06:
        raise Fail(f"half of the outputs are off by {worst:.2g} of the largest and more in bfloat16")
    return f"off by {worst:.1g}"


def no_host_callbacks(case: Case) -> None:
    """Nothing waits for Python on the host."""
    params, state = case.variables
    fn = lambda p, s, x: case.call(p, s, *x, train=True)
    if found := callbacks(fn, params, state, case.inputs):
        raise Fail(f"apply calls back into Python ({found})")
