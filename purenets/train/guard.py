"""A training that stops where it first went wrong, and says where.

To watch every value would slow a step down. A guard compares whole TrainStates now and then, in a program beside that
of the step. Only where something became infinite or NaN are the steps in between taken again to find the first that
failed, and that one is run in pieces (``nonfinite.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp

from purenets.data.batches import count_examples, epoch_order
from purenets.data.streams import Stream
from purenets.errors import describe
from purenets.layer import fold_name
from purenets.train.fit import Callback, Epoch
from purenets.train.nonfinite import NonFinite, locate_nonfinite
from purenets.train.objective import Metrics
from purenets.train.step import Step, TrainState

__all__ = ["Guarded", "NonFiniteError", "guard_fit", "guarded"]


class NonFiniteError(FloatingPointError):
    """A step gave a value that is not finite. It holds what the step was given, so that it can be run again."""

    def __init__(self, report: NonFinite | None, ts: TrainState, batch: Any) -> None:
        number = int(ts.step)
        super().__init__(str(report or f"not finite after step {number}, but not when that is run in pieces"))
        self.report = report
        self.ts = ts
        self.batch = batch


class Guarded:
    """A step for a loop of your own, that raises where it gave a value that is not finite; see :func:`guarded`."""

    def __init__(self, step: Step, every: int) -> None:
        self.step, self.every = step, every
        self._run = jax.jit(lambda ts, batch: step(ts, batch))
        self._batches: list[Any] = []
        # The TrainState before those batches, and the one after.
        self._start: TrainState | None = None
        self._end: Any = None
        self._waiting: tuple[jax.Array, TrainState, list[Any]] | None = None

    def __call__(self, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Take one step, compiled.

        Raises:
            NonFiniteError: a step before gave a value that is not finite.
        """
        start = ts if self._start is None else self._start
        after, metrics = self._run(ts, batch)
        self._look()
        self._batches.append(batch)
        self._start, self._end = start, after
        if len(self._batches) == self.every:
            self._ask(start, after)
        return after, metrics

    def finish(self) -> None:
        """Look at the last steps as well.

        Raises:
            NonFiniteError: one of them gave a value that is not finite.
        """
        self._look()
        if self._start is not None:
            self._ask(self._start, self._end)
        self._look()

    def _ask(self, start: TrainState, end: TrainState) -> None:
        """Begin to find out about the last steps, without waiting for them."""
        self._waiting = (_became_nonfinite(start, end), start, self._batches)
        self._start, self._batches = None, []

    def _look(self) -> None:
        taken, self._waiting = self._waiting, None
        if taken is None or not bool(taken[0]):
            return
        _, ts, batches = taken
        self._start, self._batches = None, []
        for batch in batches:
            after, _ = self._run(ts, batch)
            if bool(_became_nonfinite(ts, after)):
                raise NonFiniteError(locate_nonfinite(self.step, ts, batch), ts, batch)
            ts = after
        raise NonFiniteError(None, taken[1], batches)


def guarded(step: Step, *, every: int = 10) -> Guarded:
    """The step, compiled, which stops a loop where it first gave a value that is not finite, and says where.

    The program that runs is that of the step itself. After ``every`` steps another one compares the TrainState
    with that of so many steps before, and its answer is read one step later; the steps are then taken again, one
    by one, to find the first that failed. One TrainState and the batches are kept for that. Call ``finish()``
    after the last step.

    What counts is the TrainState that comes out: infinities that were there before are left alone, such as a best
    loss to start from, and a scaled step that overflows is no failure.

    Args:
        step: of :func:`~purenets.train.step.make_step`.
        every: after how many steps to look.

    Raises:
        TypeError: it is no step of ``make_step``, which can be run in pieces.
        ValueError: ``every`` is less than 1.
        NonFiniteError: (when called) a step before gave a value that is not finite.

    >>> import optax, purenets as pn
    >>> model = pn.dense(2, 1)
    >>> objective = pn.supervised(model, lambda out, y: jnp.sqrt(jnp.sum(jnp.abs(out - y), -1)))
    >>> step = pn.make_step(objective, optax.sgd(0.1))
    >>> ts, batch = pn.start(model, step.optimizer, jax.random.key(0)), (jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    >>> careful = guarded(step)
    >>> _ = careful(ts, batch)
    >>> careful.finish()
    Traceback (most recent call last):
    purenets.train.guard.NonFiniteError: not finite in step 0: gradient bias, float32[1] has 1 infinite of 1, ...
    """
    if not callable(getattr(step, "objective", None)):
        raise TypeError(f"guarded needs a step of make_step, got {describe(step)}")
    if every < 1:
        raise ValueError(f"guarded needs to look after 1 step at least, got every={every}")
    return Guarded(step, every)


def guard_fit(step: Step, ts: TrainState, data: Any, *, batch_size: int, shuffle: bool = True) -> Callback:
    """A callback for :func:`~purenets.train.fit.fit` that stops where a value first is not finite, and says where.

    After an epoch that ended so, it is run again, step by step, from the last TrainState that was finite. Give
    it what ``fit`` is given; it goes before callbacks that save anything.

    Raises:
        TypeError: as :func:`guarded`.
        NonFiniteError: (when called) the epoch ended with a value that is not finite.
    """
    last = [ts]
    careful = guarded(step, every=1)

    def callback(epoch: Epoch) -> None:
        if not bool(_became_nonfinite(last[0], epoch.ts)):
            last[0] = epoch.ts
            return
        now = last[0]
        for batch in islice(
            _batches(step, now, data, batch_size, shuffle), int(epoch.ts.step) - int(now.step)
        ):
            now, _ = careful(now, batch)
        careful.finish()
        raise NonFiniteError(None, last[0], data)

    return callback


def _batches(step: Step, ts: TrainState, data: Any, batch_size: int, shuffle: bool) -> Iterator[Any]:
    """The batches that ``fit`` takes from a TrainState on, without end."""
    if isinstance(data, Stream):
        placement = getattr(step, "placement", None)
        yield from data.batches(ts.key, batch_size, start=int(ts.step), shuffle=shuffle, placement=placement)
    examples = count_examples(data, batch_size)
    steps = examples // batch_size
    for number in count(int(ts.step) // steps):
        order = jnp.arange(examples)
        if shuffle:
            order = epoch_order(fold_name(ts.key, "order"), number, examples)
        for rows in order[: steps * batch_size].reshape(steps, batch_size):
            yield jax.tree.map(itemgetter(rows), data)


@jax.jit
def _became_nonfinite(before: TrainState, after: TrainState) -> jax.Array:
    """Whether any value is not finite that was."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    real = [(old, new) for old, new in pairs if jnp.issubdtype(new.dtype, jnp.inexact)]
    bad = [jnp.any(jnp.isfinite(old) & ~jnp.isfinite(new)) for old, new in real]
    return jnp.any(jnp.array(bad))
