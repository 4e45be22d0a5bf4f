"""Where the steps of an epoch get their batches: from arrays on the device, or from a stream.

A *feed* takes a TrainState through an epoch. Over arrays an epoch is one program; over a stream it is a program for
every few steps, which trains while the batches of the next ones are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from purenets.data.batches import block_size, count_examples
from purenets.data.streams import Stream
from purenets.train.objective import Metrics
from purenets.train.run import train
from purenets.train.step import Step, TrainState

__all__ = ["Feed", "feed"]

Go: TypeAlias = Callable[[TrainState], tuple[TrainState, Metrics]]
"""Train for an epoch; gives the new TrainState and the means of the metrics."""


class Feed(Protocol):
    """Data as ``fit`` sees them."""

    steps: int
    """How many steps an epoch has."""

    def order(self, ts: TrainState) -> dict[str, Any]:
        """What the order of the data follows from, as JSON; two trainings with the same have the same batches."""

    def epochs(self, ts: TrainState, number: int, keep: bool) -> Any:
        """A context of so many epochs, one at each call; with ``keep`` no TrainState that goes in is consumed."""


def feed(step: Step, data: Any, batch_size: int, shuffle: bool) -> Feed:
    """The feed of a pytree of arrays, or of a stream."""
    kind = StreamFeed if isinstance(data, Stream) else ArrayFeed
    return kind(step, data, batch_size, shuffle)


def _order(ts: TrainState, examples: int, batch_size: int, shuffle: bool, steps: int) -> dict[str, Any]:
    return {
        "examples": examples,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "steps of an epoch": steps,
        "key": jax.random.key_data(ts.key).tolist(),
    }


def _epoch(
    step: Step, ts: TrainState, data: Any, batch_size: int, shuffle: bool
) -> tuple[TrainState, Metrics]:
    ts, metrics = train(step, ts, data, epochs=1, batch_size=batch_size, shuffle=shuffle)
    return ts, jax.tree.map(jnp.mean, metrics)


_static = ("step", "batch_size", "shuffle")
_keeping = jax.jit(_epoch, static_argnames=_static)
_donating = jax.jit(_epoch, static_argnames=_static, donate_argnames=("ts",))


class ArrayFeed:
    """Arrays on the device."""

    def __init__(self, step: Step, data: Any, batch_size: int, shuffle: bool) -> None:
        self._step, self._batch_size, self._shuffle = step, batch_size, shuffle
        self._data, self._examples = data, count_examples(data, batch_size)
        self.steps = self._examples // batch_size

    def order(self, ts: TrainState) -> dict[str, Any]:
        """See :class:`Feed`."""
        return _order(ts, self._examples, self._batch_size, self._shuffle, self.steps)

    @contextmanager
    def epochs(self, ts: TrainState, number: int, keep: bool) -> Iterator[Go]:  # noqa: ARG002
        """See :class:`Feed`."""
        data = jax.tree.map(jnp.asarray, self._data)
        run = _keeping if keep else _donating
        given = {"step": self._step, "data": data, "batch_size": self._batch_size, "shuffle": self._shuffle}
        yield lambda ts: run(ts=ts, **given)


class StreamFeed:
    """Stacks of batches that come one after another."""

    def __init__(self, step: Step, data: Stream, batch_size: int, shuffle: bool) -> None:
        self._step, self._stream, self._batch_size, self._shuffle = step, data, batch_size, shuffle
        self.steps = data.steps_per_epoch or len(data) // batch_size

    def order(self, ts: TrainState) -> dict[str, Any]:
        """See :class:`Feed`."""
        return _order(ts, len(self._stream), self._batch_size, self._shuffle, self.steps)

    @contextmanager
    def epochs(self, ts: TrainState, number: int, keep: bool) -> Iterator[Go]:
        """See :class:`Feed`."""
        size = block_size(self.steps, self._stream.steps_per_call)
        sizes = [size] * (self.steps // size) + [self.steps % size] * (self.steps % size > 0)
        stacks = self._stream.stacks(
            ts.key,
            self._batch_size,
            sizes * number,
            start=int(ts.step),
            shuffle=self._shuffle,
            placement=getattr(self._step, "placement", None),
        )

        def go(ts: TrainState) -> tuple[TrainState, Metrics]:
            if keep:
                ts = jax.tree.map(jnp.copy, ts)
            rows: Any = None
            marks = [jnp.int32(0)]
            for _ in sizes:
                stack = next(stacks)
                if rows is None:
                    rows = _no_rows(self._step, ts, stack, self.steps)
                ts, rows, mark = _some(self._step, ts, rows, marks[-1], stack)
                # Programs that wait for their turn hold their batches: no more than two of them.
                marks = [*marks[-2:], mark]
                jax.block_until_ready(marks[0])
            return ts, _means(rows)

        with closing(stacks):
            yield go


@partial(jax.jit, static_argnames="step", donate_argnames=("ts", "rows"))
def _some(
    step: Step, ts: TrainState, rows: Metrics, done: jax.Array, stack: Any
) -> tuple[TrainState, Metrics, jax.Array]:
    """The steps of one stack; their metrics go into the rows of the epoch."""
    ts, found = jax.lax.scan(step, ts, stack)
    rows = {name: jax.lax.dynamic_update_slice(rows[name], found[name], (done,)) for name in rows}
    return ts, rows, done + len(jax.tree.leaves(stack)[0])


def _no_rows(step: Step, ts: TrainState, stack: Any, steps: int) -> Metrics:
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stack)
    _, metrics = jax.eval_shape(step, ts, batch)
    return {name: jnp.zeros(steps, metric.dtype) for name, metric in metrics.items()}


@jax.jit
def _means(rows: Metrics) -> Metrics:
    return {name: jnp.mean(row) for name, row in rows.items()}
