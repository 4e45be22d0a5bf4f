"""Sources of examples by number, and how some of them become one batch.

A source is either arrays ``[examples, ...]``, in memory or mapped from files, from which rows are gathered; or
anything with a length that gives *records*, one example each, which are stacked.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from purenets.data.batches import count_examples
from purenets.errors import describe

__all__ = ["ArrayRows", "Records"]


class ArrayRows:
    """Rows of a pytree of arrays ``[examples, ...]``.

    Raises:
        ValueError: as :func:`~purenets.data.count_examples`.
    """

    def __init__(self, arrays: Any) -> None:
        self._count = count_examples(arrays)
        self._arrays = arrays

    def __len__(self) -> int:
        return self._count

    def take(self, indices: np.ndarray, around: int) -> Any:  # noqa: ARG002
        """A batch of the examples with these numbers; ``around`` is the number of the pass."""
        return jax.tree.map(lambda leaf: _plain(leaf[indices]), self._arrays)


class Records:
    """Examples of anything that gives one by its number.

    Args:
        source: ``len(source)`` and ``source[i]``, a pytree of arrays and numbers.
        on_and_on: whether to ask for example i of pass p by the number ``p * len(source) + i``.

    Raises:
        TypeError: the source has no length or no examples by number.
        ValueError: it is empty.
    """

    def __init__(self, source: Any, *, on_and_on: bool = False) -> None:
        if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
            raise TypeError(
                f"a stream needs a source with len(source) and source[i], got {type(source).__name__}: "
                "examples that come one after another have no number to be found by again"
            )
        self._count = len(source)
        if not self._count:
            raise ValueError(f"the source of a stream is empty: len of {type(source).__name__} is 0")
        self._source, self._on_and_on = source, on_and_on
        self._first = self._get(0, 0)

    def __len__(self) -> int:
        return self._count

    def take(self, indices: np.ndarray, around: int) -> Any:
        """A batch of the examples with these numbers; ``around`` is the number of the pass.

        Raises:
            ValueError: one differs from the first example in structure, shape or dtype.
        """
        records = [self._get(int(index), around) for index in indices]
        for index, record in zip(indices, records, strict=True):
            if _form(record) != _form(self._first):
                raise ValueError(
                    f"example {index} of the source is {describe(record)}, and example 0 is {describe(self._first)}: "
                    "pad, crop or cast them in the source, since a batch has one shape and dtype"
                )
        return jax.tree.map(lambda *leaves: np.stack(leaves), *records)

    def _get(self, index: int, around: int) -> Any:
        try:
            record = self._source[index + around * self._count * self._on_and_on]
        except Exception as error:
            error.add_note(f"while reading example {index} of the source of a stream")
            raise
        return jax.tree.map(_plain, record)


def _plain(leaf: Any) -> np.ndarray:
    """A NumPy array in the dtype that JAX will give it."""
    array = np.asarray(leaf)
    if array.dtype.kind in "SUO":
        raise TypeError(f"a stream needs numbers, got {type(leaf).__name__}: decode it in the source")
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _form(record: Any) -> Any:
    leaves, structure = jax.tree.flatten(record)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
