"""A run is a scan of steps: whole epochs, whole trainings and their evaluation as one program each.

:func:`train` is pure and takes no part in what surrounds it, so ``jax.jit`` compiles a whole training and
``jax.vmap`` a sweep of them. The order of the data is a function of ``(ts.key, epoch, step)`` alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from purenets.data.batches import count_examples, epoch_order, scan_batches
from purenets.data.streams import Stream
from purenets.layer import fold_name
from purenets.train.objective import Metrics, Objective
from purenets.train.step import Step, TrainState

__all__ = ["evaluate", "mean_metrics", "measure", "train"]


def train(
    step: Step,
    ts: TrainState,
    data: Any,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool = True,
    ahead: int = 2**22,
) -> tuple[TrainState, Metrics]:
    """Train for whole epochs: a scan of scans, pure.

    Args:
        step: ``(ts, batch) -> (ts, metrics)``, of :func:`make_step` or your own.
        ts: where to go on from; the epoch counted is ``ts.step`` over the steps of an epoch.
        data: a pytree of arrays ``[examples, ...]``.
        epochs: how many times to go through the data.
        batch_size: examples a step; the last ``examples % batch_size`` of an epoch's order are left out.
        shuffle: draw a new order for each epoch; otherwise the order of the data.
        ahead: bytes of batches to gather before the steps that use them. Under ``jax.vmap`` every member
            gathers as many, so 0 is best there.

    Returns:
        The new TrainState and the metrics of every step, ``[epochs, steps]``.

    Raises:
        TypeError: the data are a stream, which is read between programs: that is for ``fit``.
        ValueError: the data are empty, their leaves disagree in length, or hold less than one batch.
    """
    if isinstance(data, Stream):
        raise TypeError("train is one pure program over arrays: give a stream to fit")
    examples = count_examples(data, batch_size)
    steps = examples // batch_size

    def epoch(ts: TrainState, _: None) -> tuple[TrainState, Metrics]:
        order = None
        if shuffle:
            order = epoch_order(fold_name(ts.key, "order"), ts.step // steps, examples)
        return scan_batches(step, ts, data, order, batch_size, ahead=ahead)

    return jax.lax.scan(epoch, ts, None, length=epochs)


@partial(jax.jit, static_argnames=("objective", "size"))
def mean_metrics(objective: Objective, params: Any, state: Any, data: Any, size: int) -> Metrics:
    """Loss and metrics over all of the data in evaluation mode, by batches of ``size``: :func:`evaluate`, pure."""
    examples = count_examples(data)
    whole = examples // size * size

    def of_batch(batch: Any) -> Metrics:
        loss, (_, metrics) = objective(params, state, batch, None, False)
        return {"loss": loss, **metrics}

    total: Any = None
    if whole:
        _, rows = scan_batches(lambda carry, batch: (carry, of_batch(batch)), None, data, None, size)
        total = jax.tree.map(lambda row: jnp.sum(row, 0) * size, rows)
    if whole < examples:
        rest = of_batch(jax.tree.map(lambda x: x[whole:], data))
        weighted = jax.tree.map(lambda value: value * (examples - whole), rest)
        total = weighted if total is None else jax.tree.map(jnp.add, total, weighted)
    return jax.tree.map(lambda value: value / examples, total)


@partial(jax.jit, static_argnames="objective")
def _of_batch(objective: Objective, params: Any, state: Any, batch: Any) -> Metrics:
    loss, (_, metrics) = objective(params, state, batch, None, False)
    return {"loss": loss, **metrics}


def _stream_metrics(step: Step, ts: TrainState, stream: Stream, size: int) -> Metrics:
    """As :func:`mean_metrics`, a batch at a time; over a mesh the last smaller batch lies whole on every device."""
    placement = getattr(step, "placement", None)
    if placement is not None:
        size = size // placement.parts * placement.parts
    whole = len(stream) // size if size else 0
    total: Any = {}

    def add(batch: Any, weight: int) -> None:
        for name, value in _of_batch(step.objective, ts.params, ts.state, batch).items():
            total[name] = total.get(name, 0) + value * weight

    marks: list[jax.Array] = []
    stacks = stream.stacks(ts.key, size, [1] * whole, shuffle=False, placement=placement) if whole else ()
    for stack in stacks:
        add(jax.tree.map(lambda leaf: leaf[0], stack), size)
        # Programs that wait for their turn hold their batches: no more than two of them.
        marks = [*marks[-1:], total["loss"]]
        jax.block_until_ready(marks[0])
    if whole * size < len(stream):
        add(stream.rows(whole * size, len(stream)), len(stream) - whole * size)
    return {name: value / len(stream) for name, value in total.items()}


def measure(step: Step, ts: TrainState, data: Any, batch_size: int = 1024) -> Metrics:
    """The loss and metrics over all of the data, arrays or a stream, as :func:`evaluate`, still on the device."""
    if isinstance(data, Stream):
        return _stream_metrics(step, ts, data, min(batch_size, len(data)))
    size = min(batch_size, count_examples(data))
    return mean_metrics(step.objective, ts.params, ts.state, data, size)


def evaluate(step: Step, ts: TrainState, data: Any, *, batch_size: int = 1024) -> dict[str, float]:
    """The loss and metrics over all of the data, arrays or a stream, in evaluation mode.

    Every example counts once: the metrics are means over batches of ``batch_size``, and a last smaller
    batch counts by its size.

    Raises:
        ValueError: the data are empty or their leaves disagree in length.
    """
    return {name: float(value) for name, value in measure(step, ts, data, batch_size).items()}
