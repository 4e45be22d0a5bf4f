"""How large the gradient of each parameter is, beside the parameter itself.

A gradient norm far below the norm of its weights means a leaf that hardly moves; norms that fall or rise by powers
from the last layer to the first, that the gradient vanishes or explodes on its way back, of which
:func:`purenets.gradients.gradient_flow` judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.gradients import Flow, gradient_flow, layer_norms
from purenets.inspect.table import text_table
from purenets.layer import Key, Params, State
from purenets.paths import Where, flatten, matching, unflatten
from purenets.train.objective import Objective

__all__ = ["GradientSizes", "gradient_sizes"]


class GradientSizes(NamedTuple):
    """What :func:`gradient_sizes` found; ``str`` makes a table of it, and it is a pytree."""

    gradients: dict[str, jax.Array]
    """Path of the leaf to the L2 norm of its gradient, ``[]``, or ``[members]`` of a stacked one."""
    params: dict[str, jax.Array]
    """Likewise to that of the leaf."""

    def layers(self, order: Sequence[str] | None = None) -> dict[str, jax.Array]:
        """The gradient norm of each layer, from input to output: :func:`purenets.gradients.layer_norms`."""
        return layer_norms(unflatten(self.gradients), order)

    def flow(self, order: Sequence[str] | None = None) -> Flow:
        """Whether the gradient vanishes or explodes on its way back: :func:`purenets.gradients.gradient_flow`."""
        return gradient_flow(self.layers(order))

    def __str__(self) -> str:
        rows = []
        for path, gradient in self.gradients.items():
            g, w = np.asarray(gradient, np.float64), np.asarray(self.params[path], np.float64)
            for member in np.ndindex(g.shape):
                name = "".join([path, *(f"[{i}]" for i in member)])
                share = f"{g[member] / w[member]:.3g}" if w[member] else "-"
                rows.append((name, f"{g[member]:.4g}", f"{w[member]:.4g}", share))
        columns = ("leaf", "gradient", "param", "gradient / param")
        return text_table(columns, rows, right=columns[1:])


def gradient_sizes(
    objective: Objective,
    params: Params,
    state: State,
    batch: Any,
    *,
    key: Key | None = None,
    train: bool = True,
    stacked: Where | None = None,
) -> GradientSizes:
    """The norms of the gradient of an objective and of the params, leaf by leaf, in float32 at least.

    Args:
        objective: of :func:`purenets.supervised`, or any function of that form.
        params: where.
        state: the model's.
        batch: what the objective takes.
        key: of a model that is random in training.
        train: the mode.
        stacked: leaves whose first axis is that of the members of ``repeat`` or ``ensemble``, which are measured
            each by itself.

    Raises:
        ValueError: a pattern of ``stacked`` matches no leaf, or a leaf without axes.

    >>> objective = lambda params, state, batch, key, train: (batch @ params["w"], (state, {}))
    >>> sizes = gradient_sizes(objective, {"w": jnp.array([0.0, 2.0])}, {}, jnp.array([3.0, 4.0]))
    >>> sizes.gradients["w"].item(), sizes.params["w"].item()
    (5.0, 2.0)
    """
    leaves = flatten(params)
    many = set(matching(stacked, leaves)) if stacked is not None else set()
    if flat := sorted(path for path in many if not jnp.ndim(leaves[path])):
        raise ValueError(f"stacked leaves have a first axis of members, these have no axis: {flat}")
    slopes = flatten(jax.grad(lambda p: objective(p, state, batch, key, train)[0])(params))

    def norm(path: str, leaf: jax.Array) -> jax.Array:
        sizes = jnp.abs(leaf)
        wide = sizes.astype(jnp.promote_types(sizes.dtype, jnp.float32))
        return jnp.sqrt(jnp.sum(jnp.square(wide), axis=tuple(range(path in many, wide.ndim))))

    return GradientSizes(
        {path: norm(path, slopes[path]) for path in leaves},
        {path: norm(path, leaf) for path, leaf in leaves.items()},
    )
