"""Laws of regularity: what a rule does in one place it does in the next.

They need no reference. A leaf answers to its own gradient; an exact zero is what lies between the smallest
numbers of either sign; a rule that does not look at the shape of a matrix looks at no shape; the slope of an
update is the same for a small and a tiny change of the gradients, so nothing is computed in less precision
than was given; less precision changes little; and under one gradient throughout, updates do not jump.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.report import Fail, Skip, one_line
from purenets.conform.runs import counts_updates, run
from purenets.conform.sequences import sequence
from purenets.conform.subject import Subject
from purenets.conform.variations import HAIR, NUDGE, STEPS
from purenets.paths import flatten, unflatten

if TYPE_CHECKING:
    from purenets.conform.traits import Measured

__all__ = ["REGULAR"]

SHAPES = {
    "matrix": (4, 3),
    "scalar": (),
    "one": (1,),
    "row": (1, 4),
    "column": (4, 1),
    "square": (70, 70),
    "cube": (2, 3, 2),
    "kernel": (2, 2, 3, 2),
    "deep": (2, 1, 2, 1, 3),
}
STEADY_STEPS = 2400
STEADY_JUMPS = (0, 995, 9_990, 99_990, 2**24 - 5)
SPAN = 8
JUMP = 100.0


def answers_to_its_own_leaf(measured: Measured) -> str | None:
    """Each leaf's update depends on this leaf's gradient."""
    at = STEPS - 2
    base = measured.updates("base")
    if not any(u[at].any() for u in base.values()):
        raise Skip("no update at all at this step, as when gradients are gathered")
    for path, u in base.items():
        if not u.any():  # a leaf that never moves is frozen, and `moves_at_once` tells
            continue
        others = (measured.updates(f"late {way}, {path} alone")[path][at] for way in ("up", "down"))
        if all(np.array_equal(other, u[at]) for other in others):
            return f"step {at}: quite another gradient of {path} alone, and the same update of it"
    return None


def zero_is_between(measured: Measured) -> str | None:
    """A gradient of zero gives what lies between the smallest gradients of either sign."""
    zero, minus, above, below = (
        measured.updates(f"late {name}zero") for name in ("", "minus ", "above ", "below ")
    )
    for path, u in zero.items():
        if not np.array_equal(u, minus[path], equal_nan=True):
            step = int(np.argmax((u != minus[path]).reshape(STEPS, -1).any(1)))
            return f"step {step}: {path} tells a gradient of minus zero from one of zero"
        for step in range(STEPS - 2, STEPS):
            a, b, c = (x[path][step].reshape(-1)[0] for x in (zero, above, below))
            low, high = min(b, c), max(b, c)
            size = max(abs(low), abs(high))
            near = 1e-6 * size
            # A rule that jumps at zero, as Rprop does with the sign of the gradient, may do a third thing on it.
            if size > 1e-20 and high - low > 0.1 * size:
                continue
            if np.isfinite([a, b, c]).all() and not low - near <= a <= high + near:
                return (
                    f"step {step}: the update of {path} is {a:.6g} after a gradient of zero, "
                    f"{b:.6g} after 1e-30 and {c:.6g} after -1e-30"
                )
    return None


def one_slope(measured: Measured) -> str | None:
    """The change of the updates per change of the gradients, for a small change and a tiny one."""
    if measured.subject.keeps("float64") - {"float64"}:
        raise Skip("keeps arrays in less precision than the parameters have")
    base, near, hair = (measured.updates(name) for name in ("base", "nudged", "nudged by a hair"))
    for path, u in base.items():
        slopes = (near[path] - u) / NUDGE, (hair[path] - u) / HAIR
        # Of a slope of zero rounding alone is left, which the step of a hair divides by 1e-9.
        allowed = 0.02 * np.max(np.abs(slopes[0]), initial=0.0) + 1e-3 * np.max(np.abs(u), initial=0.0)
        if np.isfinite(slopes).all() and np.max(np.abs(slopes[0] - slopes[1])) > allowed:
            return (
                f"float64: {path} changes by {np.max(np.abs(slopes[0])):.3g} per relative change of the "
                f"gradients by 4e-6, and by {np.max(np.abs(slopes[1])):.3g} by 1e-9: something is rounded"
            )
    return None


def shapes_alike(measured: Measured) -> str | None:
    """If a matrix and the same numbers in a row have the same updates, then leaves of any shape have.

    The row is in reverse, so that what becomes of the last numbers of a long leaf shows too.
    """
    subject = measured.subject
    shapes = {path: s for path, s in SHAPES.items() if s or subject.takes_scalars}
    long = sequence(51, shapes, 3, np.float64, kinds=("normal",))
    tree = lambda x: {path: y[None] for path, y in flatten(x).items()}
    flat = lambda x: {path: y.reshape(1, y.shape[1], -1)[..., ::-1] for path, y in x.items()}
    go = lambda g, p: run(subject, {}, [{}], [0], unflatten(g), unflatten(p)).updates
    with jax.enable_x64(True):
        g, p = tree(long.grads), tree(long.params)
        shaped, ravelled = go(g, p), go(flat(g), flat(p))
    apart = []
    for path in shapes:
        a, b = shaped[path].reshape(3, -1), ravelled[path].reshape(3, -1)[:, ::-1]
        if not np.allclose(
            a, b, rtol=1e-6, atol=1e-9 * np.max(np.abs(b), where=np.isfinite(b), initial=0.0), equal_nan=True
        ):
            apart.append(path)
    if not apart or "matrix" in apart:
        return None
    names = ", ".join(f"{list(shapes[path])}" for path in apart)
    return f"a leaf [4, 3] has the updates of its numbers in a row, but one of shape {names} has others"


def precision_changes_little(measured: Measured) -> str | None:
    """The first steps in float32, float16 and bfloat16 are about those in float64, leaves mixed too."""
    subject = measured.subject
    if subject.draws:
        raise Skip("draws random numbers, other ones in each precision")
    plain = [{path: x[0] for path, x in flatten(tree).items()} for tree in (measured.grads, measured.params)]
    exact = measured.updates("base")
    own = {LOSS.get(d, 0.0) for d in subject.keeps("float64")}
    loss = lambda dtype: max(LOSS[dtype], *own, 0.0)
    kinds: dict[str, list[Any]] = {d: [d] for d in ("float32", "bfloat16", "float16")}
    kinds["bfloat16 beside float32"] = ["bfloat16", "float32"]
    for name, dtypes in kinds.items():
        try:
            out = run(subject, {}, [{}], [0], *(_cast(tree, dtypes) for tree in plain)).updates
        except Exception as error:
            if len(dtypes) > 1:
                continue
            raise Fail(f"{name}: raised {one_line(error)}") from None
        for path, b in exact.items():
            a = out[path][0].astype(np.float64)
            size = np.max(np.abs(b), initial=0.0)
            if np.isfinite(b).all() and not np.max(np.abs(a - b), initial=0.0) <= loss(dtypes[0]) * size:
                return f"{name}: the updates of {path} are up to {np.max(np.abs(a - b)) / size:.2g} off"
    return None


def _cast(tree: dict[str, np.ndarray], dtypes: list[Any]) -> Any:
    """The leaves in these dtypes by turns, with an axis for the one run."""
    turns = (dtypes[i % len(dtypes)] for i in range(len(tree)))
    return unflatten(
        {path: np.asarray(x[None], jnp.dtype(d)) for (path, x), d in zip(tree.items(), turns, strict=True)}
    )


LOSS = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.1}
"""The share of the largest update that may be lost."""


def settles(measured: Measured) -> str | None:
    """Under one gradient throughout, updates do not jump, but for regular turns such as a refresh."""
    subject = measured.subject
    rng = np.random.default_rng(3)
    draw = lambda: np.sign(rng.standard_normal(4)) * rng.uniform(0.3, 1.5, 4)
    hold = lambda x: {"w": np.broadcast_to(x, (1, STEADY_STEPS, 4))}
    jumps = list(STEADY_JUMPS) if _counts(subject) else [0]
    with jax.enable_x64(True):
        out = run(
            subject,
            {},
            [{} for _ in jumps],
            [0] * len(jumps),
            hold(draw()),
            hold(draw()),
            jumps=jumps,
            concrete=True,
        ).updates["w"]
    for row, jump in enumerate(jumps):
        places = _jumps(out[row], 12 if jump == 0 else 3)
        if places and not _regular(places):
            if jump and not all(counts_updates(subject, {}).values()):
                return None
            step = places[0] + jump
            change = out[row, places[0] + 1] - out[row, places[0]]
            return f"one gradient throughout, and the updates jump by {change[0]:.3g} at step {step + 1:,}"
    return None


def _counts(subject: Subject) -> bool:
    """Whether moving integer counters on means that updates were made: no other number counts along."""
    tx = subject.build()
    if tx.numpy:
        return False
    scalars = [x for x in jax.tree.leaves(jax.eval_shape(tx.init, {"w": jnp.ones(4)})) if x.shape == ()]
    whole = [x for x in scalars if jnp.issubdtype(x.dtype, jnp.signedinteger)]
    return bool(whole) and not any(jnp.issubdtype(x.dtype, jnp.floating) for x in scalars)


def _jumps(u: np.ndarray, skip: int) -> list[int]:
    """Steps at which an update ``[steps, n]`` changes much more than before and after."""
    if not np.isfinite(u).all():
        return []
    change = np.abs(np.diff(u, axis=0))
    windows = np.lib.stride_tricks.sliding_window_view(change, 2 * SPAN + 1, axis=0)
    around = np.delete(windows, [SPAN - 1, SPAN, SPAN + 1], axis=2).max(axis=2)
    here = change[SPAN:-SPAN]
    large = here > JUMP * around + 1e-9 * np.abs(u[SPAN : -SPAN - 1])
    return [int(t) + SPAN for t in np.flatnonzero(large.any(axis=1)) if t + SPAN >= skip]


def _regular(places: list[int]) -> bool:
    """Whether jumps, or pairs of them there and back, come at one short distance from each other."""
    first = [b for a, b in itertools.pairwise([-SPAN, *places]) if b - a > 2]
    gaps = np.diff(first)
    # The first may have been half of a pair whose other half was not looked at.
    return len(first) > 4 and bool((gaps[1:] == gaps[1]).all()) and gaps[1] <= 60


REGULAR: dict[str, tuple[str, Callable[[Any], str | None]]] = {
    "own_leaf": ("an update depends on the gradient of its own leaf", answers_to_its_own_leaf),
    "zero_is_between": ("a gradient of zero gives what lies between those of tiny ones", zero_is_between),
    "one_slope": ("nothing is computed in less precision than was given", one_slope),
    "shapes_alike": ("a rule that overlooks a matrix's shape overlooks every shape", shapes_alike),
    "precision_changes_little": ("fewer digits give about the same updates", precision_changes_little),
    "settles": ("one gradient throughout, no jumps of the updates", settles),
}
"""Name to what it says and what measures it."""
