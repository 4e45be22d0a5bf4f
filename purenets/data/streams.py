"""Streams: batches of data that do not fit in memory, read while the steps before them run.

::

    stream = data.stream((np.load("x.npy", mmap_mode="r"), np.load("y.npy")))
    ts, history = pn.fit(step, ts, stream, epochs=20, batch_size=128, checkpoints=pn.Checkpoints("runs/a"), resume=True)

A *source* gives any example by its number. A *pass* goes once through all of them, in the order of
:func:`~purenets.data.epoch_order`. So the batch of a step follows from the key and the number of the step alone, both
of which are part of a TrainState: a stream has no position of its own that could be lost. It is the order of arrays
in memory, and a training over a stream is that over the arrays, bit for bit.

Reading is done by Grain, in threads or in processes. A *stack* is some batches together, ``[steps, batch, ...]``,
which one program trains on. Each process of many reads the rows that lie on its own devices.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from purenets.data.batches import epoch_order
from purenets.data.records import ArrayRows, Records
from purenets.layer import Key, fold_name

__all__ = ["Placing", "Stream", "stream"]

ENDLESS = 2**62


class Placing(Protocol):
    """Where batches lie over a mesh: a ``purenets.parallel.Placement``."""

    @property
    def parts(self) -> int:
        """Into how many parts the examples of a batch are spread."""

    def of_batch(self, batch: Any) -> Any:
        """The sharding of each leaf of a batch ``[examples, ...]``."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Data that are read as they are used; see :func:`stream`."""

    source: ArrayRows | Records
    steps_per_epoch: int | None
    steps_per_call: int
    threads: int
    workers: int
    ahead: int

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.source)

    def rows(self, start: int, stop: int) -> Any:
        """Some examples as one batch of NumPy arrays on the host, in the order of the source."""
        return self.source.take(np.arange(start, stop), 0)

    def batches(
        self,
        key: Key,
        batch_size: int,
        *,
        start: int = 0,
        shuffle: bool = True,
        placement: Placing | None = None,
    ) -> Iterator[Any]:
        """The batches of the steps from ``start`` on, one after another without end, for a loop of your own.

        They are those of ``fit`` and ``train`` for a TrainState with this key::

            for batch in stream.batches(ts.key, 128, start=int(ts.step)):
                ts, metrics = go(ts, batch)

        Args:
            key: that of the TrainState.
            batch_size: examples a step; those that do not fill a last batch are left out of that pass.
            start: the first step.
            shuffle: draw a new order for each pass; otherwise the order of the source.
            placement: that of a step over a mesh, ``step.placement``.

        Raises:
            ValueError: the source has fewer examples than a batch; the batch does not divide by the devices; or, when
                read, an example differs from the first one in shape or dtype. The message has its number.
        """
        stacks = self._stacks(key, batch_size, repeat(1), ENDLESS, start, shuffle, placement)
        return (jax.tree.map(lambda leaf: leaf[0], stack) for stack in stacks)

    def stacks(
        self,
        key: Key,
        batch_size: int,
        sizes: Sequence[int],
        *,
        start: int = 0,
        shuffle: bool = True,
        placement: Placing | None = None,
    ) -> Generator[Any, None, None]:
        """The same batches in stacks of these sizes, each leaf ``[size, batch, ...]``, and no more of them."""
        return self._stacks(key, batch_size, sizes, sum(sizes), start, shuffle, placement)

    def _stacks(
        self,
        key: Key,
        batch_size: int,
        sizes: Iterable[int],
        steps: int,
        start: int,
        shuffle: bool,
        placement: Placing | None,
    ) -> Generator[Any, None, None]:
        import grain  # type: ignore[import-untyped]

        first = self.rows(0, 1)
        if len(self) < batch_size:
            raise ValueError(f"a batch of {batch_size} needs as many examples, the stream has {len(self)}")
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype), first
        )
        where = None if placement is None else placement.of_batch(shapes)
        own = _own_rows(where, batch_size)
        orders = _Orders(*_plain(fold_name(key, "order")), len(self)) if shuffle else None
        batches = _Batches(self.source, orders, batch_size, own, start, steps)
        found = grain.MapDataset.source(batches).to_iter_dataset(
            grain.ReadOptions(self.threads, 2 * self.threads)
        )
        if self.workers:
            _parse_flags()
            found = found.mp_prefetch(grain.MultiprocessingOptions(self.workers, 2), _on_processor)
        reader = iter(found)
        ready = grain.experimental.ThreadPrefetchDatasetIterator(
            _Stacks(reader, sizes, where, own, batch_size), self.ahead
        )

        def read() -> Generator[Any, None, None]:
            try:
                yield from ready
            finally:
                ready.close()
                reader.close()

        return read()


def stream(
    source: Any,
    *,
    steps_per_epoch: int | None = None,
    steps_per_call: int = 16,
    threads: int = 4,
    workers: int = 0,
    ahead: int = 2,
) -> Stream:
    """Data that do not fit in memory or on the device, for ``fit``, ``evaluate`` or a loop of your own.

    Args:
        source: a tuple or dict of arrays ``[examples, ...]``, which may be mapped from files
            (``np.load(file, mmap_mode="r")``); or anything with ``len(source)`` and ``source[i]``, which gives an
            example without an axis for the batch, ``(x, y)`` for instance: a list, a
            :class:`~purenets.data.PictureFolder`, a ``grain.MapDataset`` with its own transformations. That one is
            indexed on and on, pass after pass, so its random transformations draw anew in each.
        steps_per_epoch: how many steps are an epoch for ``fit``, after which come callbacks, validation and
            checkpoints; the passes over the data go on underneath. By default an epoch is one pass.
        steps_per_call: how many steps are one program.
        threads: that read, each a whole batch at a time; in every worker.
        workers: processes that read, where decoding in Python takes longer than the steps. The script needs
            ``if __name__ == "__main__":`` then.
        ahead: stacks to hold ready on the devices.

    Raises:
        ImportError: Grain is not installed.
        TypeError: the source has no length or no examples by number.
        ValueError: the source is empty or its arrays disagree in length; a number is not positive; workers are
            asked for to read arrays, which threads do as fast.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError("streams are read by Grain: pip install purenets[stream]") from error
    counts = {"steps_per_call": steps_per_call, "threads": threads, "ahead": ahead}
    for name, value in {**counts, "steps_per_epoch": steps_per_epoch}.items():
        if value is not None and value < 1:
            raise ValueError(f"a stream needs {name} of at least 1, got {value}")
    if workers < 0:
        raise ValueError(f"a stream needs workers of at least 0, got {workers}")
    found: ArrayRows | Records
    if isinstance(source, (tuple, dict)) or hasattr(source, "shape"):
        if workers:
            raise ValueError("arrays are read by threads as fast: leave workers at 0")
        found = ArrayRows(source)
    else:
        found = Records(source, on_and_on=isinstance(source, grain.MapDataset))
    return Stream(found, steps_per_epoch, steps_per_call, threads, workers, ahead)


class _Orders:
    """The orders of passes, computed on the host, once for all threads; a worker process computes its own."""

    def __init__(self, words: np.ndarray, kind: str, examples: int) -> None:
        self._given = (words, kind, examples)
        self._lock = threading.Lock()
        self._found: dict[int, np.ndarray] = {}

    def __reduce__(self) -> Any:
        return _Orders, self._given

    def __call__(self, number: int) -> np.ndarray:
        words, kind, examples = self._given
        with self._lock:
            if number not in self._found:
                with jax.default_device(_processor()):
                    order = epoch_order(
                        jax.random.wrap_key_data(jnp.asarray(words), impl=kind), number, examples
                    )
                # Readers are ahead of each other by less than a pass.
                self._found = {n: kept for n, kept in self._found.items() if abs(n - number) == 1}
                self._found[number] = np.asarray(order)
            return self._found[number]


class _Batches:
    """Own rows of the batches of the steps from ``start`` on, by number: what Grain's readers read."""

    def __init__(
        self,
        source: ArrayRows | Records,
        orders: _Orders | None,
        batch_size: int,
        own: np.ndarray,
        start: int,
        steps: int,
    ) -> None:
        self._source, self._orders, self._batch_size, self._own = source, orders, batch_size, own
        self._start, self._steps = start, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, number: int) -> Any:
        around, place = divmod(self._start + number, len(self._source) // self._batch_size)
        positions = place * self._batch_size + self._own
        return self._source.take(
            positions if self._orders is None else self._orders(around)[positions], around
        )


class _Stacks:
    """Batches put together in stacks, and on the devices."""

    def __init__(
        self, batches: Iterator[Any], sizes: Iterable[int], where: Any, own: np.ndarray, batch_size: int
    ) -> None:
        self._batches, self._sizes, self._where = batches, iter(sizes), where
        self._own, self._batch_size = own, batch_size

    def __next__(self) -> Any:
        parts = [next(self._batches) for _ in range(next(self._sizes))]
        stack = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
        return jax.device_put(stack) if self._where is None else jax.tree.map(self._lay, self._where, stack)

    def get_state(self) -> dict[str, Any]:
        """Nothing, since a stream has no position of its own."""
        return {}

    def _lay(self, sharding: NamedSharding, stack: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            low, high, _ = index[1].indices(self._batch_size)
            first = int(np.searchsorted(self._own, low))
            return stack[index[0], first : first + high - low][(slice(None), slice(None), *index[2:])]

        shape = (stack.shape[0], self._batch_size, *stack.shape[2:])
        stacked = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
        return jax.make_array_from_callback(shape, stacked, part)


def _own_rows(where: Any, batch_size: int) -> np.ndarray:
    """The rows of a batch that lie on devices of this process, ascending."""
    if where is None:
        return np.arange(batch_size)
    wanted = np.zeros(batch_size, bool)
    for sharding in jax.tree.leaves(where):
        for index in sharding.addressable_devices_indices_map((batch_size,)).values():
            wanted[index[0]] = True
    return np.flatnonzero(wanted)


def _plain(key: Key) -> tuple[np.ndarray, str]:
    return np.asarray(jax.random.key_data(key)), str(jax.random.key_impl(key))


def _processor() -> jax.Device | None:
    """The host itself, so that an order waits for no accelerator; None where JAX may not use it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _parse_flags() -> None:
    """Grain's workers read flags, which only programs of absl have parsed by themselves."""
    from absl import flags  # type: ignore[import-untyped]

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _on_processor(*_: int) -> None:
    """In a worker process, which may not touch the accelerators of its parent."""
    jax.config.update("jax_platforms", "cpu")
