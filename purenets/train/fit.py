"""``fit``: epoch after epoch, and around them what a person wants: progress, validation, stopping, history.

The metrics of an epoch are read while the next one already runs, so nothing waits for them. Buffers are
donated from epoch to epoch unless a callback may want to keep them; the state that the caller gave is copied
first and stays usable.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from purenets.data.batches import count_examples, find_nonfinite
from purenets.data.streams import Stream
from purenets.train.checkpoint import Checkpoints
from purenets.train.feed import feed
from purenets.train.progress import progress_bar
from purenets.train.run import measure
from purenets.train.step import Step, TrainState, check_fit

__all__ = ["Callback", "Epoch", "History", "early_stopping", "fit"]

History: TypeAlias = dict[str, np.ndarray]
"""Metric name to its value in every epoch, ``[epochs]``."""


@dataclass
class Epoch:
    """What a callback gets after an epoch."""

    number: int
    """0 for the first epoch of this call of fit."""
    ts: TrainState
    metrics: dict[str, float]
    """Means over the epoch's steps, and ``validation/...`` over the validation data."""
    stopped_with: TrainState | None = None

    def stop(self, ts: TrainState | None = None) -> None:
        """End the training after this epoch; ``fit`` returns ``ts``, by default that of this epoch."""
        self.stopped_with = self.ts if ts is None else ts


Callback: TypeAlias = Callable[[Epoch], None]
"""A function of an :class:`Epoch`, called after each."""


def early_stopping(
    metric: str = "validation/loss", *, patience: int = 10, min_delta: float = 0.0, maximize: bool = False
) -> Callback:
    """Stop once the metric has not improved for ``patience`` epochs, and go back to its best epoch.

    Args:
        metric: a name of the history.
        patience: epochs without improvement that are allowed; at least 1.
        min_delta: the least change that counts as an improvement, in the metric's units.
        maximize: whether larger is better. NaN is never an improvement.

    Raises:
        ValueError: patience is less than 1, or (at the first epoch) there is no such metric.
    """
    if patience < 1:
        raise ValueError(f"early_stopping needs a patience of at least 1 epoch, got {patience}")
    best: list[Any] = [np.inf, 0, None]

    def callback(epoch: Epoch) -> None:
        if metric not in epoch.metrics:
            raise ValueError(
                f"early_stopping watches {metric!r}, but the metrics are {sorted(epoch.metrics)}"
            )
        if epoch.number == 0:
            best[:] = [np.inf, 0, epoch.ts]
        value = -epoch.metrics[metric] if maximize else epoch.metrics[metric]
        if value < best[0] - min_delta:
            best[:] = [value, epoch.number, epoch.ts]
        elif epoch.number - best[1] >= patience:
            epoch.stop(best[2])

    return callback


def fit(
    step: Step,
    ts: TrainState,
    data: Any,
    *,
    epochs: int,
    batch_size: int,
    validation: Any = None,
    callbacks: Sequence[Callback] = (),
    shuffle: bool = True,
    progress: bool = True,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
) -> tuple[TrainState, History]:
    """Train for ``epochs``, each as one compiled program or a few, with progress, validation and callbacks.

    Args:
        step: the training step.
        ts: where to start; it is not consumed.
        data: a pytree of arrays ``[examples, ...]`` that fits on the device, or a
            :func:`~purenets.data.stream` of what does not; both train to the same bits.
        epochs: how many epochs, at most.
        batch_size: examples a step; what an epoch's order leaves over is left out of that epoch.
        validation: data to evaluate on after each epoch, of either kind.
        callbacks: functions of an :class:`Epoch`, called in order, one epoch late at most.
        shuffle: draw a new order for each epoch.
        progress: show a live bar.
        checkpoints: where to save the state after epochs. On SIGTERM, to one of many processes too, the
            epoch is ended, saved, and returned.
        resume: go on from the latest checkpoint where there is one; ``epochs`` counts those done before.

    Returns:
        The last TrainState, or the one a callback stopped with, and the history.

    Raises:
        ValueError: the data are empty, not finite, disagree in length, hold less than one batch or do not
            suit the model or the loss (of a stream the first batch is looked at); the TrainState does not belong to
            the step; the checkpoint to go on from was of other data, batches or another key. Nothing has run then.
        OSError: the folder of checkpoints cannot be written.
    """
    if epochs < 1:
        raise ValueError(f"fit needs at least 1 epoch, got {epochs}")
    if resume and checkpoints is None:
        raise ValueError("fit can resume only with checkpoints=Checkpoints(folder)")
    _check(step, ts, data, batch_size, "data")
    if validation is not None:
        _check(step, ts, validation, 1, "validation")
    if checkpoints is not None:
        checkpoints.check_writable()
    if not isinstance(validation, Stream):
        validation = jax.tree.map(jnp.asarray, validation)
    source = feed(step, data, batch_size, shuffle)
    order = source.order(ts)
    done = 0
    if resume and jax.process_count() > 1:
        multihost_utils.sync_global_devices("all have written what is to be resumed")
    if checkpoints and resume and checkpoints.epochs():
        ts = checkpoints.restore(ts, order=order)
        done = checkpoints.epochs()[-1]
        if done >= epochs:
            return ts, {}
    ts = jax.tree.map(jnp.copy, ts)
    rows: list[dict[str, float]] = []
    waiting: Epoch | None = None

    def settle(epoch: Epoch) -> TrainState | None:
        epoch.metrics = {name: float(value) for name, value in epoch.metrics.items()}
        rows.append(epoch.metrics)
        show(epoch.number + 1, epoch.metrics)
        for callback in callbacks:
            callback(epoch)
        asked = asked_to_stop(epoch.number + 1)
        end = epoch.number + 1 == epochs or asked or epoch.stopped_with is not None
        if checkpoints and checkpoints.due(epoch.number + 1, end):
            checkpoints.save(epoch.number + 1, epoch.ts, epoch.metrics, order=order)
        if asked and epoch.stopped_with is None:
            epoch.stop(epoch.ts)
        return epoch.stopped_with

    running = source.epochs(ts, epochs - done, keep=bool(callbacks or checkpoints))
    with _graceful(checkpoints) as asked_to_stop, progress_bar(epochs, progress) as show, running as go:
        for number in range(done, epochs):
            ts, metrics = go(ts)
            if validation is not None:
                scores = measure(step, ts, validation)
                metrics |= {f"validation/{name}": value for name, value in scores.items()}
            if waiting is not None and (stopped := settle(waiting)) is not None:
                return stopped, _history(rows)
            waiting = Epoch(number, ts, metrics)  # type: ignore[arg-type]
        stopped = settle(waiting) if waiting is not None else None
    return (ts if stopped is None else stopped), _history(rows)


@contextlib.contextmanager
def _graceful(checkpoints: Checkpoints | None) -> Iterator[Callable[[int], bool]]:
    """Whether to stop after so many epochs, since SIGTERM has come; at the end all checkpoints are on disk."""
    if checkpoints is None:
        yield lambda epochs: False
        return
    came: list[int] = []
    # Many processes must stop after the same epoch, which JAX sees to.
    alone = jax.process_count() == 1
    here = alone and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number)) if here else None
    try:
        yield lambda epochs: bool(came) if alone else multihost_utils.reached_preemption_sync_point(epochs)
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
        checkpoints.wait()


def _history(rows: list[dict[str, float]]) -> History:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _check(step: Step, ts: TrainState, data: Any, batch_size: int, what: str) -> None:
    try:
        if isinstance(data, Stream):
            data = data.rows(0, min(len(data), batch_size))
        count_examples(data, batch_size)
        find_nonfinite(data)
        check_fit(step, ts)
        if validate := getattr(step.objective, "validate", None):
            validate(ts.params, ts.state, data)
    except ValueError as error:
        error.add_note(f"found in {what} before anything ran")
        raise
