"""Gradients that show defects: many magnitudes, exact zeros, sign flips, repeats, quiet; from no loss at all.

On gradients of ordinary size an epsilon in the wrong place changes nothing; on gradients of a loss that goes
down the late ones are all small. These sequences span 1e-9 to 1e3 over a run and 1e-4 to 1e2 within a step.
Each leaf passes through *stretches*, every one a way in which optimizers have gone wrong:

=========  ====================================================================
normal     random signs and sizes
repeat     each gradient several times over
flip       the same gradient with alternating sign
constant   one gradient throughout
quiet      exact zeros throughout
burst      one step a thousand times larger, then a thousand times smaller
sparse     most entries exactly zero, and now and then the whole leaf
wander     the scale moves over all twelve decades
=========  ====================================================================

The parameters that go with them move on their own, so that both sides of a comparison see the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purenets.conform.subject import Subject
from purenets.paths import unflatten

__all__ = ["BIG", "FULL", "SMALL", "GradientRun", "Shapes", "sequence", "shapes_for", "stack"]

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each leaf, by its path."""

SMALL: Shapes = {"dense/kernel": (4, 3), "dense/bias": (3,), "gain": ()}
"""A matrix, a vector and a scalar."""

FULL: Shapes = {
    **SMALL,
    "conv/kernel": (2, 2, 3, 2),
    "embedding": (5, 7),
    "norm/scale": (3,),
    "one": (1,),
}
"""As well a kernel of a convolution, an embedding, a scale, and a leaf of one entry."""

BIG: Shapes = {"table": (260, 257), "bias": (3,)}
"""A leaf large enough for rules that treat large matrices apart, such as factored moments."""

STRETCHES = ("normal", "repeat", "flip", "constant", "quiet", "burst", "sparse", "wander")


class GradientRun(NamedTuple):
    """Gradients and parameters over time, each a tree of ``[steps, ...]``."""

    grads: Any
    params: Any


def shapes_for(shapes: Shapes, *subjects: Subject | None) -> Shapes:
    """The shapes that all of the subjects take: without scalars, or leaves of no elements, where one takes none."""
    present = [subject for subject in subjects if subject is not None]
    without = [kind for kind in ((), (0, 3)) if not all(subject.takes(kind) for subject in present)]
    return {path: shape for path, shape in shapes.items() if shape not in without}


def _stretch(kind: str, steps: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One stretch ``[steps, *shape]`` of gradients of order one."""
    one = rng.standard_normal((steps, *shape)) + 0.1
    wide = (slice(None), *[None] * len(shape))
    if kind == "repeat":
        return one[(np.arange(steps) // 3) * 3 % steps]
    if kind == "flip":
        return one[np.zeros(steps, int)] * np.where(np.arange(steps) % 2, -1.0, 1.0)[wide]
    if kind == "constant":
        return one[np.zeros(steps, int)]
    if kind == "quiet":
        return np.zeros((steps, *shape))
    if kind == "burst":
        scale = np.full(steps, 1e-3)
        scale[: max(1, steps // 8)] = 1e3
        return one * scale[wide]
    if kind == "sparse":
        kept = rng.random((steps, *shape)) < 0.35
        return one * kept * (np.arange(steps) % 4 != 1)[wide]
    if kind == "wander":
        return (
            one
            * 10.0
            ** np.interp(np.arange(steps), [0, steps / 2, steps], rng.permutation([-7.0, 0.0, 2.5]))[wide]
        )
    return one


def sequence(
    seed: int,
    shapes: Shapes,
    steps: int,
    dtype: Any = np.float64,
    first: str = "normal",
    extreme: bool = False,
    kinds: Sequence[str] = STRETCHES,
) -> GradientRun:
    """One run of gradients and parameters.

    Args:
        seed: of the random numbers; the same arguments give the same run.
        shapes: path to shape.
        steps: how many.
        dtype: of every leaf.
        first: the stretch that comes first, ``quiet`` for a first gradient of exactly zero.
        extreme: let some entries be as small as 1e-18 and as large as 1e7, which float64 can hold.
        kinds: the stretches to pass through, in an order that the seed decides.

    >>> sequence(0, {"w": (2,)}, 30).grads["w"].shape
    (30, 2)
    """
    rng = np.random.default_rng(seed)
    rest = [kind for kind in kinds if kind != first] if len(kinds) > 1 else []
    order = [first, *(str(kind) for kind in rng.permutation(rest))]
    cuts = np.linspace(0, steps, len(order) + 1).astype(int)
    lengths = list(np.diff(cuts))
    grads, params = {}, {}
    for path, shape in shapes.items():
        parts = [_stretch(k, int(n), shape, rng) for k, n in zip(order, lengths, strict=True) if n]
        # Within a step entries differ by six decades, and an entry keeps its own scale throughout, so that
        # some of them are always far below any epsilon and some always far above.
        exponents = rng.uniform(-4, 2, shape)
        if extreme:
            exponents = np.where(rng.random(shape) < 0.15, rng.uniform(-18, 7, shape), exponents)
        grads[path] = np.clip(np.concatenate(parts) * 10.0**exponents, -1e12, 1e12).astype(dtype)
        start = rng.standard_normal(shape) * 10.0 ** rng.uniform(-1.5, 0.7, shape)
        walk = np.cumsum(rng.standard_normal((steps, *shape)) * 0.02, axis=0)
        alive = np.where(rng.random(shape) < 0.1, 0.0, 1.0)
        moving = (start + walk) * alive
        moving[steps // 3 : steps // 3 + 2] = 0.0
        params[path] = moving.astype(dtype)
    if not extreme:
        grads = {path: np.clip(g, -5e3, 5e3) for path, g in grads.items()}
    return GradientRun(unflatten(grads), unflatten(params))


def stack(runs: Sequence[Any]) -> Any:
    """Several trees of arrays as one, along a new first axis."""
    return jax.tree.map(lambda *xs: np.stack(xs), *runs)
