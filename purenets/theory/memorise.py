"""A ReLU network that knows any table of bits by heart (Shen, Yang & Zhang 2020, lemma 3.6).

For bits ``theta[m, j]`` with ``m < N^2 L`` and ``j < L`` it gives ``phi(m, l) = theta[m, 0] + ... + theta[m, l]`` from
width 4 N + 3 and 3 L + 3 hidden layers. It first goes from m to the number ``y = 0.theta[m, 0] theta[m, 1] ...`` in
binary, by *fitting points*, and then reads bits from y (:mod:`purenets.theory.bits`).

Fitting N^2 L points takes two hidden layers of 2 N and 2 N L units. The points are N groups of P = N L neighbours. In
group k the values go, from s = 0 on, like ``y_k(0) + sum_j d_k(j) relu(s - j)``: the second layer has a unit for the
first value and, for each j, one for a rise of slope and one for a fall. What such a unit sees must be linear within
each group and is free to differ between groups, and that is what the first layer is for: its units bend the line
at the last point of a group and at the first of the next. The second layer is then folded: 2 N units at a time
over L layers, with the first layer and the sum so far carried along.

All weights and values are multiples of 2^-L, so that the result is exact as long as the dtype holds them all.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.compose import serial
from purenets.errors import describe
from purenets.layer import Layer
from purenets.theory.bits import binary_fraction, bit_extraction
from purenets.theory.constructions import given_dense

__all__ = ["memorising_network"]


def memorising_network(bits: Any, n: int, dtype: Any = jnp.float32) -> Layer:
    """The network for ``bits [n^2 L, L]``: ``[batch, 2]`` of (m, l) to ``[batch, 1]``, how many of bits 0 to l are 1.

    Its width is ``4 n + 3`` and it has ``3 L + 3`` hidden layers, as in the lemma.

    Raises:
        ValueError: the bits are not of that shape, or not all 0 or 1; or ``L + log2(8 n^4 L^2)``, what the values
            need, is more than the binary digits of the dtype: 24 in float32, 53 in float64.

    >>> bits = np.array([[1, 0], [1, 1]])  # n = 1, L = 2
    >>> net = memorising_network(bits, 1)
    >>> queries = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> net.apply(*net.init(jax.random.key(0)), queries)[0][:, 0].tolist()
    [1.0, 1.0, 1.0, 2.0]
    """
    table = np.asarray(bits)
    length = table.shape[-1] if table.ndim == 2 else 0
    if table.ndim != 2 or not length or len(table) != n * n * length:
        raise ValueError(
            f"memorising_network needs bits [n^2 L, L], for n = {n} and L = {length} {[n * n * length, length]}, "
            f"got {list(table.shape)}"
        )
    needed = length + int(np.ceil(np.log2(8 * n**4 * length**2)))
    if needed > (limit := jnp.finfo(dtype).nmant + 1):
        raise ValueError(
            f"memorising_network for n = {n} and L = {length} needs {needed} binary digits and "
            f"{jnp.dtype(dtype).name} has {limit}: take float64 or a smaller table"
        )
    values = np.array([binary_fraction(row) for row in table]).reshape(n, n * length)
    bends = _bends(values)
    units, signs = _units(values)

    layers: dict[str, Any] = {}

    def add(kernel: np.ndarray, bias: np.ndarray) -> None:
        index = len(layers) // 2 + 1
        layers[f"layer_{index}"] = given_dense(kernel.astype(dtype), bias.astype(dtype))
        layers[f"relu_{index}"] = jax.nn.relu

    # The first layer: m, the bends relu(m - place), and l.
    first = np.zeros((2, 2 * n + 1))
    first[0, : 2 * n] = 1
    first[1, -1] = 1
    add(first, np.concatenate([[0.0], -bends, np.zeros(2 * n + 1 - 1 - len(bends))]))
    # Then 2 n units of the second layer at a time, after [bends, units, rises so far, falls so far, l].
    width = 4 * n + 3
    for start in range(0, 2 * n * length, 2 * n):
        chunk, before = units[:, start : start + 2 * n], signs[start - 2 * n : start]
        kernel, bias = np.zeros((2 * n + 1 if not start else width, width)), np.zeros(width)
        kernel[: 2 * n, : 2 * n] = np.eye(2 * n)
        kernel[: 2 * n, 2 * n : 2 * n + chunk.shape[1]] = chunk[:-1]
        bias[2 * n : 2 * n + chunk.shape[1]] = chunk[-1]
        kernel[-1, -1] = 1
        if start:
            kernel[2 * n : 4 * n, -3], kernel[2 * n : 4 * n, -2] = before > 0, before < 0
            kernel[-3, -3] = kernel[-2, -2] = 1
        add(kernel, bias)
    # The value and l + 1, since the bits that count are 0 to l.
    kernel = np.zeros((width, 2))
    kernel[2 * n : 4 * n, 0] = signs[-2 * n :]
    kernel[-3, 0], kernel[-2, 0], kernel[-1, 1] = 1, -1, 1
    add(kernel, np.array([0.0, 1.0]))

    def checked(x: jax.Array) -> jax.Array:
        if x.shape[-1:] != (2,) or x.dtype != jnp.dtype(dtype):
            raise ValueError(
                f"memorising_network needs [batch, 2] of {jnp.dtype(dtype).name}, got {describe(x)}"
            )
        return x

    counted = given_dense(np.ones((1, 1), dtype), np.zeros(1, dtype))
    return serial(
        given=checked,
        fit=serial(**layers),
        bits=bit_extraction(length, dtype),
        count=jax.nn.relu,
        out=counted,
    )


def _bends(values: np.ndarray) -> np.ndarray:
    """Where the first layer bends: at the last point of each group and at the first of the next."""
    groups, points = values.shape
    starts = points * np.arange(1, groups)
    return np.stack([starts - 1, starts], -1).ravel().astype(float)


def _units(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each unit of the second layer sees of the first, ``[2 n + 1, 2 n L]``, the bias last, and its sign.

    Column by column: the first values of the groups, then for each place a rise and a fall; one column is left over.
    """
    groups, points = values.shape
    slopes = np.diff(values, axis=1, prepend=values[:, :1])[:, 1:]
    changes = np.diff(slopes, axis=1, prepend=0.0)
    starts = points * np.arange(groups)
    columns, signs = [_line(values[:, 0], np.zeros(groups), starts, points)], [1.0]
    for j in range(points - 1):
        for sign in (1.0, -1.0):
            steep = np.maximum(sign * changes[:, j], 0.0)
            columns.append(_line(-j * steep, steep, starts, points))
            signs.append(sign)
    columns.append(np.zeros_like(columns[0]))
    return np.stack(columns, -1), np.array([*signs, 0.0])


def _line(at_start: np.ndarray, slope: np.ndarray, starts: np.ndarray, points: int) -> np.ndarray:
    """Weights on m and the bends, and a bias, for a line of this value and slope from the start of each group on."""
    groups = len(starts)
    weights = np.zeros(2 * groups + 1)
    weights[0], weights[-1] = slope[0], at_start[0]
    for k in range(1, groups):
        before = at_start[k - 1] + slope[k - 1] * (points - 1)
        between = at_start[k] - before  # in one step from the last point of a group to the first of the next
        weights[2 * k - 1], weights[2 * k] = between - slope[k - 1], slope[k] - between
    return weights
