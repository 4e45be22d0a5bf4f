"""Training that keeps its best state and knows when to stop, inside one program.

:func:`fit` stops by a callback, between programs. Here the decision is part of the program, so that every
member of a sweep or an ensemble stops by itself and keeps its own best state.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from purenets.data.batches import count_examples
from purenets.train.keys import without_keys
from purenets.train.objective import Metrics
from purenets.train.run import mean_metrics, train
from purenets.train.step import Step, TrainState

__all__ = ["train_best"]


def train_best(
    step: Step,
    ts: TrainState,
    data: Any,
    held_out: Any,
    *,
    epochs: int,
    batch_size: int,
    patience: int | None = None,
    metric: str = "loss",
    mode: Literal["min", "max"] = "min",
    shuffle: bool = True,
    ahead: int = 2**22,
) -> tuple[TrainState, Metrics]:
    """Train for at most ``epochs`` and return the state after the best of them, pure: jit it, vmap it.

    After each epoch the metrics over ``held_out`` are taken in evaluation mode. Once the best is ``patience``
    epochs old nothing is trained any more; under ``jax.vmap`` the members that go on decide how long it takes.

    Args:
        step: of :func:`make_step`, or any step with an ``objective``.
        ts: where to start.
        data: to train on, arrays ``[examples, ...]``.
        held_out: to choose by.
        epochs: the most to train.
        batch_size: examples a step.
        patience: epochs without a better value before the end; None never stops.
        metric: what to choose by, ``"loss"`` or a metric of the objective.
        mode: whether small or large is better. NaN is never better.
        shuffle: as of :func:`train`.
        ahead: as of :func:`train`.

    Returns:
        The best TrainState (the first one where nothing was ever better than NaN), and for each epoch, as arrays
        ``[epochs]``, the held-out metrics, ``best``, the epoch of the best so far, and ``trained``, whether the
        epoch was trained at all. After the end the metrics stay at their last values.

    Raises:
        ValueError: the metric is not one of the objective, ``patience`` is not positive, or as :func:`train`.
    """
    if patience is not None and patience < 1:
        raise ValueError(f"train_best needs a patience of at least 1 epoch, got {patience}")
    if mode not in ("min", "max"):
        raise ValueError(f"train_best needs mode='min' or 'max', got {mode!r}")
    size = min(1024, count_examples(held_out))

    def measure(ts: TrainState) -> Metrics:
        return mean_metrics(step.objective, ts.params, ts.state, held_out, size)

    names = jax.eval_shape(measure, ts)
    if metric not in names:
        raise ValueError(f"train_best has no metric {metric!r} to choose by; there are {', '.join(names)}")
    worst = jnp.asarray(jnp.inf if mode == "min" else -jnp.inf, names[metric].dtype)

    # Keys travel as their data: of two states with one key it is chosen, which would count as using it twice.
    bare, keyed = without_keys(ts)

    def go_on(now: Any) -> tuple[Any, Metrics]:
        after, _ = train(
            step, keyed(now), data, epochs=1, batch_size=batch_size, shuffle=shuffle, ahead=ahead
        )
        return without_keys(after)[0], measure(after)

    def epoch(carry: Any, number: jax.Array) -> Any:
        now, last, best, value, when = carry
        active = jnp.bool_(True) if patience is None else number - when <= patience
        now, last = jax.lax.cond(active, go_on, lambda _: (now, last), now)
        found = last[metric]
        better = active & (found < value if mode == "min" else found > value)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, best)
        carry = now, last, best, jnp.where(better, found, value), jnp.where(better, number, when)
        return carry, {**last, "best": carry[-1], "trained": active}

    before = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), names)
    start = (bare, before, bare, worst, jnp.int32(0))
    (_, _, best, _, _), rows = jax.lax.scan(epoch, start, jnp.arange(1, epochs + 1, dtype=jnp.int32))
    return keyed(best), rows
