"""The weights of an LSTM: Flax has each gate's apart, purenets has them side by side.

Flax's ``ii``, ``if``, ``ig``, ``io`` take the input and have no bias; its ``hi``, ``hf``, ``hg``, ``ho`` take the
output of the step before and have one. Here they are ``kernel [n_in, 4 n_out]``, ``bias [4 n_out]`` and
``recurrent_kernel [n_out, 4 n_out]``, the gates in the order i, f, g, o.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from purenets.layer import Params

__all__ = ["lstm_from_flax", "lstm_to_flax"]


def lstm_from_flax(params: Mapping[str, Any]) -> Params:
    """The params of Flax's ``LSTMCell`` or ``OptimizedLSTMCell`` as those of :func:`~purenets.lstm_cell`.

    Raises:
        ValueError: these are not the params of such a cell.
    """
    wanted = {f"{side}{gate}" for side in "ih" for gate in "ifgo"}
    if set(params) != wanted:
        raise ValueError(
            f"an LSTM cell of Flax has the params {', '.join(sorted(wanted))}, got {', '.join(params) or 'none'}"
        )
    return {
        "kernel": jnp.concatenate([params[f"i{gate}"]["kernel"] for gate in "ifgo"], -1),
        "recurrent_kernel": jnp.concatenate([params[f"h{gate}"]["kernel"] for gate in "ifgo"], -1),
        "bias": jnp.concatenate([params[f"h{gate}"]["bias"] for gate in "ifgo"], -1),
    }


def lstm_to_flax(params: Mapping[str, Any]) -> Params:
    """The params of a plain :func:`~purenets.lstm_cell` as those of Flax's cells.

    Raises:
        ValueError: these are not the params of such a cell, or it has peepholes or norms, which Flax's lack.
    """
    wanted = {"kernel", "recurrent_kernel", "bias"}
    if set(params) != wanted:
        raise ValueError(
            f"a plain LSTM cell has the params {', '.join(sorted(wanted))}, got {', '.join(params) or 'none'}"
        )
    kernels, recurrent, biases = (
        jnp.split(params[name], 4, -1) for name in ("kernel", "recurrent_kernel", "bias")
    )
    out: Params = {f"i{gate}": {"kernel": kernel} for gate, kernel in zip("ifgo", kernels, strict=True)}
    for gate, kernel, bias in zip("ifgo", recurrent, biases, strict=True):
        out[f"h{gate}"] = {"kernel": kernel, "bias": bias}
    return out
