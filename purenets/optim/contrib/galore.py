"""GaLore: any optimizer on gradients projected to a few dimensions (Zhao et al. 2024, algorithm 1).

Each matrix of gradients ``[m, n]`` is projected on its leading singular vectors along its longer side, the
base optimizer works on what is left, ``[rank, n]`` or ``[m, rank]``, and its updates are projected back.
The vectors are found anew every ``update_proj_gap`` updates. The state is the base optimizer's on the small
matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import GaLoreDimensionNumbers, GaLoreState  # type: ignore[import-untyped]

from purenets.optim.adam_rules import scale_by_adam
from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Mask,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
    check_leaves,
)
from purenets.optim.checks import aligned, nth_path
from purenets.optim.combine import chain, scale_by_learning_rate, with_extra_args_support
from purenets.optim.contrib.matrices import as_matrices, fans
from purenets.optim.decay import add_decayed_weights
from purenets.optim.numerics import narrow, safe_increment
from purenets.optim.trees import gathered

__all__ = ["GaLoreDimensionNumbers", "GaLoreState", "galore", "scale_by_galore"]


def _flat(tree: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree)


def _is_numbers(x: Any) -> bool:
    return x is None or isinstance(x, GaLoreDimensionNumbers)


def _matrix(x: Any, numbers: GaLoreDimensionNumbers) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """The one matrix of a leaf, and the way back."""
    matrices, back = as_matrices(x, numbers.reduction_axis, numbers.output_axis, "scale_by_galore")
    if matrices.shape[0] != 1:
        raise ValueError(
            f"scale_by_galore: every axis is of the rows or of the columns, got {numbers} for shape "
            f"{list(x.shape)}; vmap over a batch of matrices"
        )
    return matrices[0], lambda y: back(y[None])


def _leading(matrix: jax.Array, like: jax.Array) -> jax.Array:
    """The leading singular vectors of the longer side; float32 is enough to choose a subspace."""
    kept = like.shape[1]
    left, _, right = jnp.linalg.svd(matrix.astype(jnp.float32), full_matrices=False)
    vectors = left[:, :kept] if matrix.shape[0] >= matrix.shape[1] else right[:kept].T
    return vectors.astype(like.dtype)


def scale_by_galore(
    rank: int = 128,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_dimension_numbers: Any = None,
) -> GradientTransformationExtraArgs:
    """The base optimizer on projected gradients.

    Args:
        rank: the number of dimensions kept.
        update_proj_gap: how many updates one projection lasts.
        scale: a factor of what is projected back.
        base_optimizer: by default Adam's direction; it gets no parameters.
        weight_dimension_numbers: for all leaves of two or more axes, a tree with None for leaves that are not
            projected, or a function from the parameters to one; by default leaves of two axes.

    Raises:
        TypeError: the rank is no integer.
        ValueError: the rank is not positive, or a leaf is no matrix.
    """
    if not isinstance(rank, int):
        raise TypeError(
            f"rank must be an int, got {type(rank).__name__}: it is a shape, and cannot be traced"
        )
    if rank < 1:
        raise ValueError(f"rank must be positive, got {rank}")
    base = with_extra_args_support(scale_by_adam() if base_optimizer is None else base_optimizer)

    def numbers_of(tree: Any) -> list[Any]:
        given = weight_dimension_numbers
        given = given(tree) if callable(given) else given
        leaves, treedef = _flat(tree)
        if given is None:
            return [GaLoreDimensionNumbers() if x.ndim == 2 else None for x in leaves]
        if isinstance(given, GaLoreDimensionNumbers):
            return [given if x.ndim >= 2 else None for x in leaves]
        spread = jax.tree.map(
            lambda d, part: jax.tree.map(lambda _: (d,), part), given, tree, is_leaf=_is_numbers
        )
        return [d for (d,) in treedef.flatten_up_to(spread)]

    def shapes_of(x: Any, numbers: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of a leaf's projector and of what it leaves."""
        if numbers is None:
            return (0, 0), x.shape
        rows, columns = fans(x, numbers.reduction_axis, numbers.output_axis)
        kept = min(rank, rows, columns)
        return ((rows, kept), (kept, columns)) if rows >= columns else ((columns, kept), (rows, kept))

    def init(params: Params) -> GaLoreState:
        leaves, treedef = _flat(params)
        shapes = [shapes_of(x, d) for x, d in zip(leaves, numbers_of(params), strict=True)]
        made = [[jnp.zeros(s, x.dtype) for s in pair] for x, pair in zip(leaves, shapes, strict=True)]
        if not leaves:
            return GaLoreState(jnp.zeros([], jnp.int32), base.init(params), params)
        return GaLoreState(
            count=jnp.zeros([], jnp.int32),
            base_optimizer_state=base.init(jax.tree.unflatten(treedef, [proxy for _, proxy in made])),
            projector=jax.tree.unflatten(treedef, [projector for projector, _ in made]),
        )

    def update(
        updates: Updates, state: GaLoreState, params: Params = None, **extra: Any
    ) -> tuple[Updates, GaLoreState]:
        del params
        check_leaves(updates, "scale_by_galore")
        leaves, treedef = _flat(updates)
        before = aligned(treedef, updates, state.projector, "the state", "scale_by_galore")
        numbers = numbers_of(updates)
        due = state.count % update_proj_gap == 0
        projectors, projected = [], []
        for at, (g, d, p) in enumerate(zip(leaves, numbers, before, strict=True)):
            if d is not None:
                if shapes_of(g, d)[0] != p.shape:
                    raise ValueError(
                        f"scale_by_galore: {nth_path(updates, at)!r} is {list(g.shape)} in the updates, and "
                        f"its projector in the state {list(p.shape)}; was the state made by init for these "
                        "parameters?"
                    )
                matrix, _ = _matrix(gathered(g)[0], d)
                p = jax.lax.cond(due, lambda matrix=matrix, p=p: _leading(matrix, p), lambda p=p: p)
                g = p.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ p
            projectors.append(p)
            projected.append(g)
        low, base_state = base.update(
            jax.tree.unflatten(treedef, projected), state.base_optimizer_state, None, **extra
        )
        out = []
        for u, g, d, p in zip(treedef.flatten_up_to(low), leaves, numbers, projectors, strict=True):
            if d is not None:
                whole, apart = gathered(g)
                matrix, back = _matrix(whole, d)
                u = back(p @ u if matrix.shape[0] >= matrix.shape[1] else u @ p.T)
                u = apart(narrow(scale, u) * u)
            out.append(u.astype(g.dtype))
        return jax.tree.unflatten(treedef, out), GaLoreState(
            count=safe_increment(state.count),
            base_optimizer_state=base_state,
            projector=jax.tree.unflatten(treedef, projectors),
        )

    return GradientTransformationExtraArgs(init, update)


def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: Scalar = 200,
    scale: Scalar = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    weight_dimension_numbers: Any = None,
) -> GradientTransformationExtraArgs:
    """:func:`scale_by_galore` with decoupled weight decay."""
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
