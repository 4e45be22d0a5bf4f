"""The weights of a GRU: Flax has each gate's apart, purenets has them side by side.

Flax's ``ir``, ``iz``, ``in`` take the input and have biases; its ``hr``, ``hz``, ``hn`` take the output of the step
before, and only ``hn`` has one. Here they are ``kernel [n_in, 3 n_out]``, ``bias [3 n_out]``, ``recurrent_kernel
[n_out, 3 n_out]`` and ``recurrent_bias [n_out]``, the gates in the order r, z, n.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from purenets.layer import Params

__all__ = ["gru_from_flax", "gru_to_flax"]


def gru_from_flax(params: Mapping[str, Any]) -> Params:
    """The params of Flax's linen ``GRUCell`` as those of :func:`~purenets.gru_cell`.

    Raises:
        ValueError: these are not the params of such a cell.
    """
    wanted = {f"{side}{gate}" for side in "ih" for gate in "rzn"}
    if set(params) != wanted:
        raise ValueError(
            f"a GRU cell of Flax has the params {', '.join(sorted(wanted))}, got {', '.join(params) or 'none'}"
        )
    return {
        "kernel": jnp.concatenate([params[f"i{gate}"]["kernel"] for gate in "rzn"], -1),
        "recurrent_kernel": jnp.concatenate([params[f"h{gate}"]["kernel"] for gate in "rzn"], -1),
        "bias": jnp.concatenate([params[f"i{gate}"]["bias"] for gate in "rzn"], -1),
        "recurrent_bias": params["hn"]["bias"],
    }


def gru_to_flax(params: Mapping[str, Any]) -> Params:
    """The params of :func:`~purenets.gru_cell` as those of Flax's.

    Raises:
        ValueError: these are not the params of such a cell, or it has no biases, which Flax's has.
    """
    wanted = {"kernel", "recurrent_kernel", "bias", "recurrent_bias"}
    if set(params) != wanted:
        raise ValueError(
            f"a GRU cell has the params {', '.join(sorted(wanted))}, got {', '.join(params) or 'none'}"
        )
    kernels, recurrent, biases = (
        jnp.split(params[name], 3, -1) for name in ("kernel", "recurrent_kernel", "bias")
    )
    out: Params = {
        f"i{gate}": {"kernel": kernel, "bias": bias}
        for gate, kernel, bias in zip("rzn", kernels, biases, strict=True)
    }
    out |= {f"h{gate}": {"kernel": kernel} for gate, kernel in zip("rzn", recurrent, strict=True)}
    out["hn"]["bias"] = params["recurrent_bias"]
    return out
