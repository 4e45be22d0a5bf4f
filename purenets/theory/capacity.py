"""How large a network has to be: the ReLU approximation theorem, equal budgets, linear pieces, partitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Bound", "count_parameters", "count_pieces", "hidden_width", "partitions", "relu_bound"]


class Bound(NamedTuple):
    """What theorem 1.1 promises."""

    width: int
    depth: int
    """Hidden layers."""
    error: float


def relu_bound(d: int, n: int, length: int, *, uniform: bool = False, lipschitz: float = 1.0) -> Bound:
    """Width, depth and error of ReLU networks for functions on ``[0, 1]^d`` (Shen, Yang & Zhang 2020, theorem 1.1).

    Width ``C1 max(d floor(N^(1/d)), N + 1)``, depth ``12 L + C2`` and error ``19 sqrt(d) w(N^(-2/d) L^(-2/d))``, where
    the modulus of continuity w is that of a Lipschitz function.

    Args:
        d: inputs.
        n: N, which sets the width.
        length: L, which sets the depth.
        uniform: the error holds everywhere, ``C1 = 3^(d + 3)`` and ``C2 = 14 + 2 d``; otherwise in L^p for finite p,
            ``C1 = 12`` and ``C2 = 14``.
        lipschitz: constant of the function.

    Raises:
        ValueError: a size is not positive.
    """
    if min(d, n, length) < 1:
        raise ValueError(f"relu_bound needs positive d, N and L, got {d}, {n}, {length}")
    root = round(n ** (1 / d))
    root -= root**d > n
    first, second = (3 ** (d + 3), 14 + 2 * d) if uniform else (12, 14)
    error = 19 * math.sqrt(d) * lipschitz * (n * length) ** (-2 / d)
    return Bound(first * max(d * root, n + 1), 12 * length + second, error)


def partitions(eps: float, d: int) -> int:
    """Cells of side ``eps`` that fill ``[0, 1]^d``: what a table would need.

    >>> partitions(0.1, 3)
    1000
    """
    return round(1 / eps) ** d


def count_parameters(sizes: Sequence[int]) -> int:
    """Weights and biases of dense layers of these sizes, inputs first.

    >>> count_parameters((784, 16, 16, 10))
    13002
    """
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))


def hidden_width(n_in: int, n_out: int, depth: int, parameters: int) -> int:
    """The width at which ``depth`` equal hidden layers come nearest to so many parameters: fat or thin, one budget.

    Raises:
        ValueError: there is no hidden layer, or not even one unit fits.
    """
    if depth < 1:
        raise ValueError(f"hidden_width needs at least one hidden layer, got depth={depth}")
    sizes = lambda width: (n_in, *[width] * depth, n_out)
    if count_parameters(sizes(1)) > parameters:
        raise ValueError(
            f"{depth} hidden layers of one unit have {count_parameters(sizes(1))} parameters, more than {parameters}"
        )
    width = 1
    while count_parameters(sizes(width + 1)) <= parameters:
        width += 1
    below, above = (abs(count_parameters(sizes(w)) - parameters) for w in (width, width + 1))
    return width if below <= above else width + 1


def count_pieces(
    fn: Callable[[np.ndarray], np.ndarray], low: float, high: float, *, points: int = 100_001
) -> int:
    """How many straight pieces a piecewise linear function of one number has between two places.

    It is sampled at ``points`` places in float64; a piece shorter than two of their distances is not seen.
    """
    x = np.linspace(low, high, points)
    y = np.asarray(fn(x), np.float64)
    bends = np.abs(np.diff(y, 2)) > 1e-9 * max(1.0, float(np.abs(y).max()))
    # A bend between two samples shows in one or two second differences in a row.
    starts = bends & ~np.concatenate([[False], bends[:-1]])
    return int(starts.sum()) + 1
