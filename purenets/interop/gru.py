"""The weights of a GRU: Flax has each gate's apart, purenets has them side by side.

Flax's ``ir``, ``iz``, ``in`` take the input and have biases; its ``hr``, ``hz``, ``hn`` take the output of the step
before, and only ``hn`` has one. Here they are ``kernel [n_in, 3 n_out]``, ``bias [3 n_out]``, ``recurrent_kernel
[n_out, 3 n_out]`` and ``recurrent_bias [n_out]``, the gates in the order r, z, n.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purenets.interop.gates import apart, check_names, side_by_side
from purenets.layer import Params

__all__ = ["gru_from_flax", "gru_to_flax"]


def gru_from_flax(params: Mapping[str, Any]) -> Params:
    """The params of Flax's linen ``GRUCell`` as those of :func:`~purenets.gru_cell`.

    Raises:
        ValueError: these are not the params of such a cell.
    """
    check_names(params, {f"{side}{gate}" for side in "ih" for gate in "rzn"}, "a GRU cell of Flax")
    return {
        "kernel": side_by_side(params, "i", "rzn", "kernel"),
        "recurrent_kernel": side_by_side(params, "h", "rzn", "kernel"),
        "bias": side_by_side(params, "i", "rzn", "bias"),
        "recurrent_bias": params["hn"]["bias"],
    }


def gru_to_flax(params: Mapping[str, Any]) -> Params:
    """The params of :func:`~purenets.gru_cell` as those of Flax's.

    Raises:
        ValueError: these are not the params of such a cell, or it has no biases, which Flax's has.
    """
    check_names(params, {"kernel", "recurrent_kernel", "bias", "recurrent_bias"}, "a GRU cell")
    biases = apart(params, "bias", "rzn")
    out: Params = {
        f"i{gate}": {"kernel": kernel, "bias": biases[gate]}
        for gate, kernel in apart(params, "kernel", "rzn").items()
    }
    out |= {
        f"h{gate}": {"kernel": kernel} for gate, kernel in apart(params, "recurrent_kernel", "rzn").items()
    }
    out["hn"]["bias"] = params["recurrent_bias"]
    return out
