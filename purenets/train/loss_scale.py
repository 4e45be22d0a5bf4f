"""Dynamic loss scaling: what float16 needs so that small gradients are not lost (Micikevicius et al. 2018, 3.2).

The smallest float16 is about 6e-8, and gradients are often smaller. So the loss is multiplied by a *scale* before the
gradient is taken, and the gradient is divided by it after. Where that makes a gradient overflow, nothing is updated and
the scale is halved; after enough good steps in a row it is doubled. Scales are powers of two, by which multiplying is
exact: where nothing overflows or is lost, the training is the same.

bfloat16 has the range of float32 and needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.layer import Key, Params, State
from purenets.train.objective import Metrics, Objective
from purenets.train.step import Step, TrainState

if TYPE_CHECKING:
    import optax

__all__ = ["LossScale", "LossScaled", "loss_scaled"]


class LossScale(NamedTuple):
    """The optimizer state of a scaled step: part of the TrainState, and of its checkpoints."""

    scale: jax.Array
    """float32 scalar."""
    good_steps: jax.Array
    """int32 scalar: how many steps did not overflow since the scale last changed."""
    skipped: jax.Array
    """int32 scalar: how many steps did overflow, of all."""
    inner: Any
    """The state of the optimizer itself."""


@dataclass(frozen=True, eq=False)
class LossScaled(Step):
    """A step whose loss is scaled. See :func:`loss_scaled`."""

    def __call__(self, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Take one step, or count an overflow."""
        scale = ts.opt_state.scale
        fields = {name: getattr(self, name) for name in Step.__dataclass_fields__}
        after, metrics = Step(**{**fields, "objective": _times(self.objective, scale)})(ts, batch)
        overflow = after.opt_state.skipped != ts.opt_state.skipped
        # Statistics of a forward pass that overflowed are not numbers either.
        state = jax.tree.map(lambda old, new: jnp.where(overflow, old, new), ts.state, after.state)
        for name in metrics:
            if name.startswith("gradient_norm"):
                metrics[name] = metrics[name] / scale
        return after._replace(state=state), {**metrics, "loss_scale": scale}


def loss_scaled(step: Step, *, initial: float = 2.0**15, interval: int = 2000) -> LossScaled:
    """The step with dynamic loss scaling, for models that compute in float16.

    Start with its optimizer, which holds the scale: ``ts = start(model, step.optimizer, key)``. Params stay
    in float32 (:func:`~purenets.lift.cast`). A step that overflows leaves params, optimizer state and model
    state as they were; ``ts.step`` goes on, and with it data and masks. Metrics gain ``loss_scale``; losses
    and gradient norms are those of the loss that is not scaled.

    Args:
        step: of :func:`~purenets.train.step.make_step`.
        initial: the first scale, a power of two.
        interval: good steps in a row after which the scale is doubled. It is never less than 1.

    Raises:
        ValueError: ``initial`` is not a power of two of at least 1, or ``interval`` less than 1.
        TypeError: the step is none of ``make_step``, or it is scaled already.
    """
    if type(step) is not Step:
        raise TypeError(f"loss_scaled needs a step of make_step, got {type(step).__name__}")
    if initial < 1 or jnp.frexp(initial)[0] != 0.5:
        raise ValueError(f"loss_scaled needs a power of two of at least 1 as initial, got {initial}")
    if interval < 1:
        raise ValueError(f"loss_scaled needs an interval of at least 1 step, got {interval}")
    from optax import with_extra_args_support

    scaled = _unscaling(with_extra_args_support(step.optimizer), initial, interval)
    return LossScaled(**vars(replace(step, optimizer=scaled)))


def _times(objective: Objective, scale: jax.Array) -> Objective:
    def scaled(params: Params, state: State, batch: Any, key: Key | None, train: bool) -> Any:
        loss, rest = objective(params, state, batch, key, train)
        return loss.astype(jnp.float32) * scale, rest

    return scaled


def _unscaling(
    inner: optax.GradientTransformationExtraArgs, initial: float, interval: int
) -> optax.GradientTransformationExtraArgs:
    """The optimizer on gradients of a scaled loss; one that is not finite moves nothing."""
    from optax import GradientTransformationExtraArgs

    def init(params: Params) -> LossScale:
        return LossScale(jnp.float32(initial), jnp.int32(0), jnp.int32(0), inner.init(params))

    def update(
        grads: Params, now: LossScale, params: Params | None = None, **extra: Any
    ) -> tuple[Params, LossScale]:
        # In float32, since a scale may be larger than any float16.
        grads = jax.tree.map(lambda g: (g / now.scale).astype(g.dtype), grads)
        extra = _unscaled_extra(extra, grads, now.scale)
        updates, state = inner.update(grads, now.inner, params, **extra)
        good = jnp.all(jnp.array([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads)]))
        enough = now.good_steps + 1 >= interval
        grown = jnp.where(jnp.isfinite(now.scale * 2), now.scale * 2, now.scale)
        after = LossScale(
            scale=jnp.where(good, jnp.where(enough, grown, now.scale), jnp.maximum(now.scale / 2, 1)),
            good_steps=jnp.where(good & ~enough, now.good_steps + 1, 0),
            skipped=now.skipped + ~good,
            inner=jax.tree.map(lambda old, new: jnp.where(good, new, old), now.inner, state),
        )
        return jax.tree.map(lambda u: jnp.where(good, u, jnp.zeros_like(u)), updates), after

    return GradientTransformationExtraArgs(init, update)


def _unscaled_extra(extra: dict[str, Any], grads: Params, scale: jax.Array) -> dict[str, Any]:
    """What a step tells its optimizer about the loss, in units of the loss."""
    value_fn: Callable[[Params], jax.Array] | None = extra.get("value_fn")
    told: dict[str, Any] = {"grad": grads} if "grad" in extra else {}
    if "value" in extra:
        told["value"] = extra["value"] / scale
    if value_fn is not None:
        told["value_fn"] = lambda params: value_fn(params) / scale
    return {**extra, **told}
