"""What the cells of Flax have in common: the weights of each gate apart, where ours lie side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["apart", "check_names", "side_by_side"]


def check_names(params: Mapping[str, Any], wanted: Collection[str], cell: str) -> None:
    """Refuse params that are not those of the cell.

    Raises:
        ValueError: the names differ.
    """
    if set(params) != set(wanted):
        raise ValueError(
            f"{cell} has the params {', '.join(sorted(wanted))}, got {', '.join(params) or 'none'}"
        )


def side_by_side(params: Mapping[str, Any], side: str, gates: str, leaf: str) -> jax.Array:
    """One leaf of all gates, ``[..., gates n_out]``; ``side`` is ``"i"`` for input and ``"h"`` for recurrent."""
    return jnp.concatenate([params[f"{side}{gate}"][leaf] for gate in gates], -1)


def apart(params: Mapping[str, Any], leaf: str, gates: str) -> dict[str, jax.Array]:
    """One leaf ``[..., gates n_out]`` gate by gate."""
    return dict(zip(gates, jnp.split(params[leaf], len(gates), -1), strict=True))
