"""A tree of arrays to look at: in a notebook an interactive one by treescope, anywhere else a table.

>>> import jax.numpy as jnp
>>> print(tree({"dense": {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.zeros(2)}}))
 path           dtype     shape    bytes   mean   deviation   min   max   not finite
─────────────────────────────────────────────────────────────────────────────────────
 dense/bias     float32   [2]          8      0           0     0     0            0
 dense/kernel   float32   [1, 2]       8      0           1    -1     1            0
 (all)                                16
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.inspect.table import html_table, text_table
from purenets.paths import leaf_paths

__all__ = ["TreeRow", "TreeView", "tree"]

_COLUMNS = ("path", "dtype", "shape", "bytes", "mean", "deviation", "min", "max", "not finite")


class TreeRow(NamedTuple):
    """One leaf; what is not known of a shape, a key or an empty array is NaN."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    mean: float
    deviation: float
    min: float
    max: float
    not_finite: int
    """How many entries are infinite or no number; the other columns are of the rest."""


@dataclass(frozen=True, eq=False)
class TreeView:
    """What :func:`tree` gives: a table where it is printed, and in a notebook a tree."""

    value: Any
    """The tree itself."""
    rows: tuple[TreeRow, ...]

    def _cells(self) -> list[list[str]]:
        cells = [
            [row.path or "(the array)", row.dtype, str(list(row.shape)), f"{row.bytes:,}"]
            + ["" if math.isnan(number) else f"{number:.4g}" for number in row[4:]]
            for row in self.rows
        ]
        return [*cells, ["(all)", "", "", f"{sum(row.bytes for row in self.rows):,}", *[""] * 5]]

    def __str__(self) -> str:
        return text_table(_COLUMNS, self._cells(), right=_COLUMNS[3:])

    def _repr_html_(self) -> str:
        try:
            treescope: Any = importlib.import_module("treescope")
        except ImportError:
            return html_table(_COLUMNS, self._cells(), right=_COLUMNS[3:])
        pictures = treescope.ArrayAutovisualizer()
        with treescope.active_autovisualizer.set_scoped(pictures):
            return str(treescope.render_to_html(self.value, ignore_exceptions=True))


def tree(value: Any) -> TreeView:
    """Any pytree of arrays, such as params, a TrainState or gradients, as something to look at.

    In a notebook with treescope it unfolds, with a picture of each array; elsewhere it is a table of every leaf with
    its size and statistics.

    Args:
        value: of arrays, or of ``jax.ShapeDtypeStruct``, of which nothing is computed.
    """
    leaves = jax.tree.leaves(value)
    return TreeView(
        value, tuple(_row(path, leaf) for path, leaf in zip(leaf_paths(value), leaves, strict=True))
    )


def _row(path: str, leaf: Any) -> TreeRow:
    dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    shape = tuple(np.shape(leaf))
    size = math.prod(shape) * dtype.itemsize
    known = not isinstance(leaf, jax.ShapeDtypeStruct) and not jnp.issubdtype(dtype, jax.dtypes.extended)
    if not known or not math.prod(shape) or jnp.iscomplexobj(leaf):
        return TreeRow(path, str(dtype), shape, size, math.nan, math.nan, math.nan, math.nan, 0)
    numbers = np.asarray(leaf).astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    measures = (np.mean, np.std, np.min, np.max)
    mean, deviation, least, most = (float(fn(finite)) if finite.size else math.nan for fn in measures)
    return TreeRow(path, str(dtype), shape, size, mean, deviation, least, most, numbers.size - finite.size)
