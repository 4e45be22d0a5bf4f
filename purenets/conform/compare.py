"""Two runs compared, with a tolerance that is measured and not chosen.

Two correct implementations round differently. How much that may show in the result depends on the algorithm
and on the gradients: a difference of nearly equal numbers shows it most. So the reference is run again on
gradients moved by one unit in the last place, its states moved likewise after every update; what moves in its
results is *noise*, and nobody can be asked to agree better than that. Beyond noise two runs must agree to a fixed
relative error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["Divergence", "first_divergence", "jitter", "noise_of", "pooled", "rounded_with", "tolerance_for"]

WINDOW = 2
NOISE_FACTOR = 64.0
FADING = 0.93
SINGULAR = 0.01
ENOUGH = 20


def tolerance_for(dtype: Any, steps: int = 0) -> float:
    """The relative error that is allowed beyond noise: 1e-12 in float64, 1e-10 over a long run, 5e-5 in float32."""
    name = np.dtype(dtype).name if np.dtype(dtype).kind == "f" else str(dtype)
    if name == "float64":
        return 1e-12 if steps < 1000 else 1e-10
    return 5e-5 if name == "float32" else 0.1


class Divergence(NamedTuple):
    """The first place where two runs part."""

    what: str
    row: int
    step: int
    index: tuple[int, ...]  # type: ignore[assignment]
    ours: float
    theirs: float

    def __str__(self) -> str:
        place = f"{self.what}[{', '.join(map(str, self.index))}]" if self.index else self.what
        size = max(abs(self.ours), abs(self.theirs))
        apart = abs(self.ours - self.theirs) / size if size else 0.0
        return f"step {self.step}, {place}: {self.ours!r} instead of {self.theirs!r} (relative {apart:.1e})"


def jitter(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every number moved by one unit in the last place, up or down; zeros stay."""
    toward = np.where(rng.integers(0, 2, x.shape) == 0, -np.inf, np.inf).astype(x.dtype)
    return np.where(x == 0, x, np.nextafter(x, toward))


def noise_of(base: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """How far runs on moved gradients are from the run itself: ``[copies, rows, ...]`` to ``[rows, ...]``.

    Each step takes the largest of its neighbours too, since one lucky step says nothing. Where a moved run
    is not finite and the run itself is, nothing can be asked, and the noise is infinite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(moved.astype(np.float64) - base.astype(np.float64))
    same = (moved == base) | (np.isnan(moved) & np.isnan(base))
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return _windowed(apart.max(axis=0)) if len(moved) else np.zeros(base.shape)


def pooled(base: Mapping[str, np.ndarray], noise: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The noise of every entry, and at least the relative noise that three in four entries of its step exceed not.

    At a singular point, where a difference is exactly zero on paper, some entries come out exactly right by
    luck on every copy and others not at all: then luck is nobody's merit, and nothing is asked of that step;
    nor of later ones, where it may have ended in NaN.
    """
    if not base:
        return {}
    first = next(iter(base.values()))
    rows, steps = first.shape[:2]
    shares = []
    for path, x in base.items():
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            share = noise[path] / np.abs(np.where(np.isfinite(x), x, 0.0))
        shares.append(np.where((x == 0) | ~np.isfinite(x), np.nan, share).reshape(rows, steps, -1))
    whole = np.concatenate(shares, axis=2)
    filled = np.where(np.isnan(whole), 0.0, np.minimum(whole, 1e300))
    share = np.quantile(filled, 0.75, axis=2) if filled.shape[2] else np.zeros((rows, steps))
    singular = share > SINGULAR
    lost = singular & np.isinf(
        np.concatenate([n.reshape(rows, steps, -1) for n in noise.values()], axis=2)
    ).any(2)
    singular |= np.logical_or.accumulate(lost, axis=1)
    share = np.where(singular, np.inf, share)
    out = {}
    for path, x in base.items():
        at = share.reshape(rows, steps, *[1] * (x.ndim - 2))
        with np.errstate(invalid="ignore", over="ignore"):
            floor = np.where(np.isinf(at), np.inf, at * np.abs(np.where(np.isfinite(x), x, 0.0)))
            out[path] = np.maximum(noise[path], floor)
    return out


def rounded_with(
    updates: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A few units in the last place of the params, if updates are differences of two params, or else nothing.

    Both are rounded, however small their difference is, which moved copies may not show: all of it moves together.
    Such updates are told by being whole multiples of that unit.
    """
    few: dict[str, np.ndarray] = {}
    seen = 0
    for path, u in updates.items():
        if not jnp.issubdtype(u.dtype, jnp.floating) or u.shape != params[path].shape:
            return {}
        p = np.abs(params[path].astype(u.dtype))
        size = np.abs(u.astype(np.float64))
        small = (size > 0) & (size < p.astype(np.float64) / 8)
        if np.fmod(size[small], _unit(p[small] * p.dtype.type(7 / 8))).any():
            return {}
        few[path] = 4 * _unit(p)
        seen += int(np.count_nonzero(small))
    return few if seen >= ENOUGH else {}


def _unit(x: np.ndarray) -> np.ndarray:
    """One unit in the last place of each number, in float64."""
    return float(jnp.finfo(x.dtype).eps) * 2.0 ** (np.frexp(x.astype(np.float64))[1] - 1)


def _windowed(x: np.ndarray) -> np.ndarray:
    out = x.copy()
    for shift in range(1, WINDOW + 1):
        out[:, shift:] = np.maximum(out[:, shift:], x[:, :-shift])
        out[:, :-shift] = np.maximum(out[:, :-shift], x[:, shift:])
    return out


def _real(x: np.ndarray) -> Any:
    return x.dtype if x.dtype in (np.float32, np.float64) else np.float32


def _remembered(x: np.ndarray) -> np.ndarray:
    """How large each entry was lately, fading: what an average still holds of it is rounded on that scale."""
    out = np.abs(np.where(np.isfinite(x), x, 0.0))
    for step in range(1, x.shape[1]):
        np.maximum(out[:, step], FADING * out[:, step - 1], out=out[:, step])
    return out


def first_divergence(
    what: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    noise: np.ndarray | None,
    relative: float,
    *,
    products: bool = False,
) -> Divergence | None:
    """The earliest step at which two runs ``[rows, steps, ...]`` differ beyond tolerance, or None.

    An entry is rounded on its own scale; in ``products`` of matrices on that of its leaf (Higham 2002, section 3.5).
    """
    if ours.size == 0:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        # Where a looser tolerance is given, something on the way has the precision of float32.
        unit = np.finfo(np.float32 if relative > 1e-6 else _real(ours)).eps
        scale = _remembered(b)
        if products and b.ndim > 2:
            scale = np.broadcast_to(scale.max(axis=tuple(range(2, b.ndim)), keepdims=True), b.shape)
        allowed = relative * np.abs(b) + NOISE_FACTOR * unit * scale
        allowed = allowed + (0.0 if noise is None else NOISE_FACTOR * noise)
        good = (np.abs(a - b) <= allowed) | (a == b) | (np.isnan(a) & np.isnan(b))
    if noise is not None:
        good |= ~np.isfinite(noise)
    if good.all():
        return None
    bad_steps = ~good.reshape(good.shape[0], good.shape[1], -1).all(axis=2)
    step = int(np.argmax(bad_steps.any(axis=0)))
    row = int(np.argmax(bad_steps[:, step]))
    flat = int(np.argmax(~good[row, step].reshape(-1)))
    index = tuple(int(i) for i in np.unravel_index(flat, good.shape[2:])) if good.ndim > 2 else ()
    return Divergence(what, row, step, index, float(a[(row, step, *index)]), float(b[(row, step, *index)]))
