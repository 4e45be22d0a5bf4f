"""The weights of an LSTM: Flax has each gate's apart, purenets has them side by side.

Flax's ``ii``, ``if``, ``ig``, ``io`` take the input and have no bias; its ``hi``, ``hf``, ``hg``, ``ho`` take the
output of the step before and have one. Here they are ``kernel [n_in, 4 n_out]``, ``bias [4 n_out]`` and
``recurrent_kernel [n_out, 4 n_out]``, the gates in the order i, f, g, o.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purenets.interop.gates import apart, check_names, side_by_side
from purenets.layer import Params

__all__ = ["lstm_from_flax", "lstm_to_flax"]


def lstm_from_flax(params: Mapping[str, Any]) -> Params:
    """The params of Flax's ``LSTMCell`` or ``OptimizedLSTMCell`` as those of :func:`~purenets.lstm_cell`.

    Raises:
        ValueError: these are not the params of such a cell.
    """
    check_names(params, {f"{side}{gate}" for side in "ih" for gate in "ifgo"}, "an LSTM cell of Flax")
    return {
        "kernel": side_by_side(params, "i", "ifgo", "kernel"),
        "recurrent_kernel": side_by_side(params, "h", "ifgo", "kernel"),
        "bias": side_by_side(params, "h", "ifgo", "bias"),
    }


def lstm_to_flax(params: Mapping[str, Any]) -> Params:
    """The params of a plain :func:`~purenets.lstm_cell` as those of Flax's cells.

    Raises:
        ValueError: these are not the params of such a cell, or it has peepholes or norms, which Flax's lack.
    """
    check_names(params, {"kernel", "recurrent_kernel", "bias"}, "a plain LSTM cell")
    biases = apart(params, "bias", "ifgo")
    out: Params = {f"i{gate}": {"kernel": kernel} for gate, kernel in apart(params, "kernel", "ifgo").items()}
    for gate, kernel in apart(params, "recurrent_kernel", "ifgo").items():
        out[f"h{gate}"] = {"kernel": kernel, "bias": biases[gate]}
    return out
