"""One short run of ordinary gradients, and what is changed in it to measure a law or a trait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from purenets.conform.sequences import sequence, stack
from purenets.paths import flatten, unflatten

__all__ = ["AROUND_ZERO", "HAIR", "NUDGE", "STEPS", "variations"]

STEPS = 6
NUDGE, HAIR = 2.0**-18, 2.0**-30
"""Relative changes of the gradients: in double precision both show the same slope, in single only the first."""
AROUND_ZERO = {"late zero": 0.0, "late minus zero": -0.0, "late above zero": 1e-30, "late below zero": -1e-30}
"""What the first entry of each leaf is, late in the run."""


def _late_entry(g: Mapping[str, np.ndarray], value: float) -> dict[str, np.ndarray]:
    """The gradients with the first entry of each leaf replaced at the last step but one."""
    out = {path: x.copy() for path, x in g.items()}
    for x in out.values():
        x.reshape(STEPS, -1)[STEPS - 2, :1] = value
    return out


def variations(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int], Any, Any]:
    """Name to number of each variation, and their gradients and parameters, stacked."""
    rng = np.random.default_rng(5)
    run_ = sequence(17, shapes, STEPS, np.float64, kinds=("normal",))
    g = {p: np.sign(x) * (0.3 + np.abs(rng.standard_normal(x.shape))) for p, x in flatten(run_.grads).items()}
    p = {path: x + 0.5 * np.sign(rng.standard_normal(x.shape)) for path, x in flatten(run_.params).items()}
    drift = lambda x: 0.01 * np.arange(STEPS).reshape(-1, *[1] * (x.ndim - 1))
    p = {path: np.broadcast_to(x[:1], x.shape) + drift(x) for path, x in p.items()}
    signs = {path: np.where(rng.random(x.shape[1:]) < 0.5, -1.0, 1.0) for path, x in g.items()}
    first = next(iter(shapes))
    last_but_one = lambda x: (np.arange(STEPS) == STEPS - 2).reshape(-1, *[1] * (x.ndim - 1))
    late = lambda factor: {path: np.where(last_but_one(x), factor * x, x) for path, x in g.items()}
    poisoned = {path: x.copy() for path, x in g.items()}
    poisoned[first][(2, *[0] * len(shapes[first]))] = np.nan
    turn = lambda x: x[..., ::-1] if x.ndim > 1 else x
    each = lambda fn, tree: {path: fn(x) for path, x in tree.items()}
    wobble = {path: rng.uniform(0.5, 1.5, x.shape) * np.sign(x) for path, x in g.items()}
    nudged = lambda size: {path: x + size * np.abs(x) * wobble[path] for path, x in g.items()}
    table: dict[str, tuple[Any, Any]] = {
        "base": (g, p),
        "odd": (each(lambda x: -x, g), p),
        "scaled": (each(lambda x: 8 * x, g), p),
        "shifted": (g, each(lambda x: x + 0.7, p)),
        "other params": (g, each(lambda x: 1.3 - 2 * x, p)),
        "zero": (each(np.zeros_like, g), p),
        "nan": (poisoned, p),
        "one leaf": ({**g, first: -3.3 * g[first]}, p),
        "turned": (each(turn, g), each(turn, p)),
        "signs": ({k: x * signs[k] for k, x in g.items()}, {k: x * signs[k] for k, x in p.items()}),
        "late up": (late(1e3), p),
        "late down": (late(-1e3), p),
        "nudged": (nudged(NUDGE), p),
        "nudged by a hair": (nudged(HAIR), p),
        **{name: (_late_entry(g, value), p) for name, value in AROUND_ZERO.items()},
    }
    for path in g:
        for name, way in (("up", late(1e3)), ("down", late(-1e3))):
            table[f"late {name}, {path} alone"] = ({**g, path: way[path]}, p)
    both = stack([(unflatten(dict(a)), unflatten(dict(b))) for a, b in table.values()])
    return {name: i for i, name in enumerate(table)}, *both
