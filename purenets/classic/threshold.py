"""Threshold units (McCulloch & Pitts 1943), gates, and networks compiled from truth tables.

A unit fires, 1, when the weighted sum of its binary inputs reaches its threshold, and else rests, 0. Weights are set
by hand and not learned. :func:`logistic_gate` is the smooth form, a sigmoid of large weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.errors import describe
from purenets.layer import Layer, Params, layer

__all__ = ["GATES", "compile_truth_table", "logistic_gate", "threshold_layer", "truth_table", "xnor"]

GATES: dict[str, tuple[float, ...]] = {
    "and": (-30.0, 20.0, 20.0),
    "or": (-10.0, 20.0, 20.0),
    "nor": (10.0, -20.0, -20.0),
    "not": (10.0, -20.0),
}
"""The bias and weights of a sigmoid that computes each gate."""


def threshold_layer(weights: Any, thresholds: Any) -> Layer:
    """Units side by side, ``[..., n_in]`` of 0 and 1 to ``[..., n_out]`` of 0 and 1: ``1 if x W >= threshold``.

    Params are ``kernel [n_in, n_out]`` and ``threshold [n_out]``, as given.

    Raises:
        ValueError: the thresholds are not one for each column of the weights.

    >>> conjunction = threshold_layer([[1.0], [1.0]], [2.0])
    >>> conjunction.apply(conjunction.init(jax.random.key(0))[0], {}, jnp.array([1.0, 1.0]))[0].tolist()
    [1.0]
    """
    kernel, threshold = jnp.asarray(weights, jnp.float32), jnp.asarray(thresholds, jnp.float32)
    if kernel.ndim != 2 or threshold.shape != kernel.shape[1:]:
        raise ValueError(
            f"threshold_layer needs weights [n_in, n_out] and thresholds [n_out], got {describe(kernel)} and "
            f"{describe(threshold)}"
        )

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return (x @ params["kernel"] >= params["threshold"]).astype(jnp.float32)

    label = f"threshold_layer{kernel.shape}"
    return layer(lambda _key: {"kernel": kernel, "threshold": threshold}, apply, label=label)


def truth_table(n: int) -> np.ndarray:
    """All rows of n binary inputs, float32 ``[2^n, n]``, counting up with the first input as the highest digit."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1).astype(np.float32)


def compile_truth_table(outputs: Sequence[int]) -> Layer:
    """A network of threshold units with exactly these outputs, ``[..., n]`` to ``[..., 1]``.

    One unit for each row that is true, which fires for that row alone, and one unit that fires if any of them
    does: the disjunctive normal form. The rows are those of :func:`truth_table`.

    Raises:
        ValueError: there are not 2, 4, 8, ... outputs, or one is not 0 or 1.
    """
    from purenets.compose import serial

    values = np.asarray(outputs)
    n = len(values).bit_length() - 1
    if values.ndim != 1 or n < 1 or len(values) != 2**n:
        raise ValueError(f"a truth table of n inputs has 2^n outputs (2, 4, 8, ...), got {describe(values)}")
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"the outputs of a truth table are 0 or 1, got {sorted(set(values.tolist()))}")
    true = truth_table(n)[values == 1]
    if not len(true):
        return serial(never=threshold_layer(np.zeros((n, 1)), [1.0]))
    signs = 2 * true - 1
    return serial(
        rows=threshold_layer(signs.T, true.sum(1)), any=threshold_layer(np.ones((len(true), 1)), [1.0])
    )


def logistic_gate(name: str) -> Layer:
    """A sigmoid unit that computes ``and``, ``or``, ``nor`` (of two inputs) or ``not`` (of one) to 5e-5.

    Params are ``kernel [n, 1]`` and ``bias [1]``, from :data:`GATES`.

    Raises:
        ValueError: there is no such gate.
    """
    if name not in GATES:
        raise ValueError(f"the gates are {', '.join(GATES)}, got {name!r}")
    bias, *weights = GATES[name]

    def init(_key: jax.Array) -> Params:
        return {"kernel": jnp.array(weights)[:, None], "bias": jnp.array([bias])}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(x @ params["kernel"] + params["bias"])

    return layer(init, apply, label=f"logistic_gate({name})")


def xnor() -> Layer:
    """Of two inputs whether they are equal, by three gates in two layers: ``or(and(x), nor(x))``."""
    from purenets.compose import branch, serial

    hidden = branch(
        lambda a, b: jnp.concatenate([a, b], -1),
        conjunction=logistic_gate("and"),
        neither=logistic_gate("nor"),
    )
    return serial(hidden=hidden, either=logistic_gate("or"))
