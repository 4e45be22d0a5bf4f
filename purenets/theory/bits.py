"""Reading bits from a number by ReLUs (Shen, Yang & Zhang 2020, lemma 3.5).

A network of width 7 and 2 L hidden layers computes, for the binary fraction ``x = 0.t1 t2 ... tL`` and a number l, how
many of the first l bits are 1. With ``d = 2^-L``, bit after bit::

    t_j = relu((x_j - 1/2) / d + 1) - relu((x_j - 1/2) / d)         the first bit of what is left
    x_{j+1} = 2 x_j - t_j                                           what is left
    z_j = relu(l - j + 1) - relu(l - j)                             1 while j <= l
    sum += relu(t_j + z_j - 1)                                      the bit, if it counts

Numbers of the dtype hold L bits exactly up to 24 in float32 and 53 in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.compose import serial
from purenets.errors import describe
from purenets.layer import Layer
from purenets.theory.constructions import given_dense

__all__ = ["binary_fraction", "bit_extraction"]


def binary_fraction(bits: Sequence[int]) -> float:
    """``0.t1 t2 ... tL`` as a number.

    Raises:
        ValueError: one is not 0 or 1, or there are more than 53, which no float64 holds.

    >>> binary_fraction([1, 0, 1])
    0.625
    """
    if any(bit not in (0, 1) for bit in bits) or len(bits) > 53:
        raise ValueError(f"a binary fraction needs up to 53 bits of 0 or 1, got {list(bits)[:60]}")
    return sum(int(bit) / 2**j for j, bit in enumerate(bits, 1))


def bit_extraction(length: int, dtype: Any = jnp.float32) -> Layer:
    """The network of width 7 and depth ``2 length``: ``[batch, 2]`` of (fraction, l) to ``[batch, 1]``, the count.

    Params are ``layer_1`` to ``layer_{2 length}`` and ``out``. Exact for every string of ``length`` bits and every l
    from 0 to ``length``.

    Raises:
        ValueError: there are no bits, or more than the dtype holds exactly: 24 in float32, 53 in float64.
    """
    limit = jnp.finfo(dtype).nmant + 1
    if not 0 < length <= limit:
        error = ValueError(f"bit_extraction needs 1 to {limit} bits in {jnp.dtype(dtype).name}, got {length}")
        if limit < length <= 53:
            error.add_note(
                "float64 holds 53: jax.config.update('jax_enable_x64', True) and dtype=jnp.float64"
            )
        raise error
    step = 2.0**-length
    layers: dict[str, Any] = {}
    # What the layer before gives: at first (x, l), then [t and z joined, x, l, sum] after each bit.
    for j in range(1, length + 1):
        count = 2 if j == 1 else 4
        x, l, total = (0, 1, None) if j == 1 else (1, 2, 3)
        kernel, bias = np.zeros((count, 7)), np.zeros(7)
        kernel[x, 0] = kernel[x, 1] = 1 / step
        bias[0], bias[1] = 1 - 0.5 / step, -0.5 / step
        kernel[x, 2] = 1
        kernel[l, 3] = kernel[l, 4] = 1
        bias[3], bias[4] = 1 - j, -j
        kernel[l, 5] = 1
        if total is not None:
            kernel[total, 6] = 1
            kernel[0, 6] = 1  # the bit that the layer before found to count
        layers[f"layer_{2 * j - 1}"] = given_dense(kernel.astype(dtype), bias.astype(dtype))
        layers[f"relu_{2 * j - 1}"] = jax.nn.relu
        join = np.zeros((7, 4))
        join[[0, 1, 3, 4], 0] = [1, -1, 1, -1]  # t + z - 1
        join[[2, 0, 1], 1] = [2, -1, 1]  # 2 x - t
        join[5, 2] = join[6, 3] = 1
        layers[f"layer_{2 * j}"] = given_dense(join.astype(dtype), np.array([-1.0, 0, 0, 0]).astype(dtype))
        layers[f"relu_{2 * j}"] = jax.nn.relu
    layers["out"] = given_dense(np.array([[1.0], [0], [0], [1]]).astype(dtype), np.zeros(1).astype(dtype))
    network = serial(**layers)

    def checked(x: jax.Array) -> jax.Array:
        if x.shape[-1:] != (2,) or x.dtype != jnp.dtype(dtype):
            raise ValueError(f"bit_extraction needs [batch, 2] of {jnp.dtype(dtype).name}, got {describe(x)}")
        return x

    return serial(given=checked, network=network)
