"""Several small batches as one: the gradients of k calls are gathered, and the optimizer moves at the last.

A *mini-step* is one call of ``update``; a *gradient step* is one move of the optimizer inside. With the mean
of equal batches the move is the same as with one batch of all their examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from optax import MultiStepsState  # type: ignore[import-untyped]

from purenets.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
    check_trees,
    zeros_like,
)
from purenets.optim.checks import dtype_of
from purenets.optim.combine import with_extra_args_support
from purenets.optim.numerics import abs_sq, safe_increment
from purenets.optim.trees import cast_like, without_keys

__all__ = ["MultiSteps", "MultiStepsState", "skip_large_updates", "skip_not_finite"]


def skip_not_finite(
    updates: Updates, gradient_step: ArrayLike, params: Params
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether a mini-step holds an infinity or a NaN, for ``MultiSteps(should_skip_update_fn=...)``.

    Returns:
        The answer, and what the state keeps of it: ``should_skip`` and ``num_not_finite``, how many numbers.
    """
    del gradient_step, params
    count = sum((jnp.sum(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(updates)), start=jnp.zeros([], int))
    return count > 0, {"should_skip": count > 0, "num_not_finite": count}


def skip_large_updates(
    updates: Updates, gradient_step: ArrayLike, params: Params, max_squared_norm: ArrayLike
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether the squared norm of a mini-step is not below a limit (NaN is not), for ``MultiSteps``.

    Returns:
        The answer, and what the state keeps of it: ``should_skip`` and ``norm_squared``.
    """
    del gradient_step, params
    squared = jnp.asarray(sum(jnp.sum(abs_sq(jnp.asarray(leaf))) for leaf in jax.tree.leaves(updates)))
    large = ~(squared < max_squared_norm)
    return large, {"should_skip": large, "norm_squared": squared}


class MultiSteps:
    """An optimizer that moves at every k-th call with the mean of k gradients, and is still at the others.

    Args:
        opt: the optimizer, which sees nothing of the calls between.
        every_k_schedule: k, or a function from the number of gradient steps so far to it.
        use_grad_mean: the mean of the gradients, or else their sum.
        should_skip_update_fn: ``f(gradients, gradient_step, params) -> (skip, info)``; a skipped call is as
            if it had not been, and ``info`` is kept in the state.
        accumulator_dtype: in which the gradients are gathered; complex ones in the complex dtype with it.

    Raises:
        ValueError: k is a number below 1, or ``should_skip_update_fn`` returns no boolean scalar.
    """

    def __init__(
        self,
        opt: GradientTransformation,
        every_k_schedule: int | Callable[[ArrayLike], ArrayLike],
        use_grad_mean: bool = True,
        should_skip_update_fn: Callable[[Updates, ArrayLike, Params], tuple[Any, Any]] | None = None,
        accumulator_dtype: DTypeLike = jnp.float32,
    ):
        if isinstance(every_k_schedule, int) and every_k_schedule < 1:
            raise ValueError(f"MultiSteps moves every 1, 2, … calls, got every_k_schedule={every_k_schedule}")
        self._opt = with_extra_args_support(opt)
        self._every = every_k_schedule
        self._mean = use_grad_mean
        self._skip = should_skip_update_fn
        self._dtype = accumulator_dtype

    @property
    def inner_opt(self) -> GradientTransformationExtraArgs:
        """The optimizer inside."""
        return self._opt

    def init(self, params: Params) -> MultiStepsState:
        """The state before the first call."""
        step = jnp.zeros([], jnp.int32)
        return MultiStepsState(
            mini_step=jnp.zeros([], jnp.int32),
            gradient_step=step,
            inner_opt_state=self._opt.init(params),
            acc_grads=jax.tree.map(self._nothing, params),
            skip_state=self._should_skip(zeros_like(params), step, params)[1],
        )

    def update(
        self, updates: Updates, state: MultiStepsState, params: Params = None, **extra: Any
    ) -> tuple[Updates, MultiStepsState]:
        """Take in one gradient, and move if it is the k-th."""
        check_trees(updates, state.acc_grads, "the state", "MultiSteps")
        skip, info = self._should_skip(updates, state.gradient_step, params)
        k = self._every(state.gradient_step) if callable(self._every) else self._every
        bare, with_keys = without_keys(state.inner_opt_state)

        def move(gathered: Any) -> tuple[Updates, OptState, Any, jax.Array]:
            gradients = cast_like(gathered, updates)
            moved, inner = self._opt.update(gradients, with_keys(bare), params, **extra)
            inner = without_keys(cast_like(inner, state.inner_opt_state))[0]
            # Zeros, and not what was gathered times zero, which would keep a NaN for ever.
            nothing = zeros_like(state.acc_grads)
            return moved, inner, nothing, safe_increment(state.gradient_step)

        # The dtype of a step is for the optimizer to say, and so is that of standing still.
        still = zeros_like(jax.eval_shape(lambda: move(state.acc_grads)[0]))

        def wait(gathered: Any) -> tuple[Updates, OptState, Any, jax.Array]:
            return still, bare, cast_like(gathered, state.acc_grads), state.gradient_step

        def add(g: Any, acc: Any) -> Any:
            return acc + (g - acc) / (state.mini_step + 1) if self._mean else acc + g

        def gather() -> tuple[Updates, OptState, Any, jax.Array, jax.Array]:
            gathered = jax.tree.map(add, updates, state.acc_grads)
            emit = jax.lax.cond(state.mini_step == k - 1, move, wait, gathered)
            return *emit, (safe_increment(state.mini_step) % k).astype(jnp.int32)

        def ignore() -> tuple[Updates, OptState, Any, jax.Array, jax.Array]:
            return still, bare, state.acc_grads, state.gradient_step, state.mini_step

        done = gather() if self._skip is None else jax.lax.cond(skip, ignore, gather)
        moved, inner, total, step, mini_step = done
        return moved, MultiStepsState(mini_step, step, with_keys(inner), total, info)

    def has_updated(self, state: Any) -> jax.Array:
        """Whether the last call was one at which the optimizer moved."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformationExtraArgs:
        """The same as a transform, for a chain."""
        return GradientTransformationExtraArgs(self.init, self.update)

    def _nothing(self, x: Any) -> jax.Array:
        whole = jnp.issubdtype(dtype_of(x), jnp.complexfloating)
        return jnp.zeros_like(
            x, dtype=jnp.promote_types(self._dtype, jnp.complex64) if whole else self._dtype
        )

    def _should_skip(self, updates: Updates, step: ArrayLike, params: Params) -> tuple[Any, Any]:
        if self._skip is None:
            return False, ()
        skip, info = self._skip(updates, step, params)
        if jnp.shape(skip) != () or jnp.result_type(skip) != jnp.bool_:
            raise ValueError(
                "MultiSteps: should_skip_update_fn must return a boolean scalar and its info, "
                f"got {jnp.result_type(skip)}{list(jnp.shape(skip))}"
            )
        return skip, info
