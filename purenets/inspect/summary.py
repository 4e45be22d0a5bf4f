"""A model as a table: what each layer gives out, holds and costs, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from purenets.inspect.cost import scopes_of
from purenets.inspect.table import html_table, text_table
from purenets.layer import Layer
from purenets.paths import Where, flatten, matching
from purenets.surgery import abstract, edit, layers_by_path, tap, taps

__all__ = ["Summary", "SummaryRow", "summary"]

_COLUMNS = ("layer", "kind", "output", "parameters", "bytes", "forward FLOPs", "backward FLOPs")


@dataclass(frozen=True)
class SummaryRow:
    """One layer, with all that is inside it."""

    path: str
    """Of the layer; ``""`` for the model itself."""
    kind: str
    """Its label."""
    output: str
    """The shape of its output, or of its outputs; empty if it was not called."""
    parameters: int
    trainable: int
    decayed: int
    bytes: int
    """Of its parameters."""
    forward: int
    """Floating-point operations of one application in training mode."""
    backward: int
    """What the gradient of the parameters takes beyond that."""


@dataclass(frozen=True)
class Summary:
    """The rows, the model itself first; in a terminal, with ``rich`` and in a notebook a table."""

    rows: tuple[SummaryRow, ...]

    @property
    def total(self) -> SummaryRow:
        """The row of the model itself."""
        return self.rows[0]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = list(_COLUMNS)
        shown = [name for name in ("trainable", "decayed") if self._says_something(name)]
        cells = []
        for row in self.rows:
            indent = "  " * (row.path.count("/") + 1 if row.path else 0)
            name = indent + (row.path.rpartition("/")[2] or "model")
            extra = [f"{getattr(row, name):,}" for name in shown]
            counts = [
                f"{row.parameters:,}",
                _short(row.bytes, "B"),
                _short(row.forward),
                _short(row.backward),
            ]
            cells.append([name, row.kind, row.output, *counts, *extra])
        return header + shown, cells

    def _says_something(self, name: str) -> bool:
        """The trainable column where some are not, the decayed one where any are."""
        return getattr(self.total, name) != (self.total.parameters if name == "trainable" else 0)

    def __str__(self) -> str:
        header, cells = self._cells()
        return text_table(header, cells, right=header[3:])

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        header, cells = self._cells()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i < 3 else "right")
        for row in cells:
            table.add_row(*map(Text, row))
        return table

    def _repr_html_(self) -> str:
        header, cells = self._cells()
        return html_table(header, cells, right=header[3:])


def summary(
    model: Layer, *inputs: Any, trainable: Where | None = None, decayed: Where | None = None, **side: Any
) -> Summary:
    """The layers of a model with the shapes they give out, their parameters and their costs.

    Nothing is computed or allocated: everything comes from ``jax.eval_shape`` and from counting the operations of
    the traced program (:mod:`purenets.inspect.cost`). Operations of a layer's own body, outside its parts, show as
    the difference between its row and theirs. Under ``repeat`` and ``ensemble`` a layer's output is that of all
    members, stacked along a first axis, and its counts are of all of them.

    Args:
        model: the layer to describe.
        inputs: one shape per input, ``(32, 784)`` for float32, or anything with ``shape`` and ``dtype``.
        trainable: patterns of the parameters that are trained, all by default.
        decayed: patterns of those with weight decay, none by default.
        side: side inputs, likewise; any other value is given as it is.

    Raises:
        ValueError: the model refuses the shapes, or a pattern matches no parameter.

    >>> from purenets.compose import serial
    >>> from purenets.layers.dense import dense
    >>> print(summary(serial(hidden=dense(784, 30), relu=jax.nn.relu, head=dense(30, 10)), (32, 784)))
     layer      kind             output     parameters      bytes   forward FLOPs   backward FLOPs
    ───────────────────────────────────────────────────────────────────────────────────────────────
     model      serial           [32, 10]       23,860   95.44 kB         1.527 M          1.549 M
       hidden   dense(784, 30)   [32, 30]       23,550    94.2 kB         1.506 M          1.506 M
       relu     relu             [32, 30]            0        0 B             960           1.92 k
       head     dense(30, 10)    [32, 10]          310    1.24 kB         19.52 k          38.71 k
    """
    shapes = [abstract(x) for x in inputs]
    given = {name: abstract(x) for name, x in side.items()}
    traced = {name: x for name, x in given.items() if isinstance(x, jax.ShapeDtypeStruct)}
    fixed = {name: x for name, x in given.items() if name not in traced}
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(model.init, key)
    leaves = flatten(params)
    trained = set(leaves if trainable is None else matching(trainable, leaves))
    shrunk = set() if decayed is None else set(matching(decayed, leaves))

    def run(layer: Layer) -> Any:
        def call(params: Any, state: Any, xs: Sequence[Any], side: dict[str, Any], key: Any) -> Any:
            return layer.apply(params, state, *xs, key=key, train=True, **fixed, **side)

        return call

    tapped = tap(edit(model, "**", tap) if model.parts else model)
    program, (_, state_after) = jax.make_jaxpr(run(tapped), return_shape=True)(
        params, state, shapes, traced, key
    )
    outputs, forward = taps(state_after), scopes_of(program)

    def slope(params: Any, *rest: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs = jax.tree.leaves(run(model)(params, *rest)[0])
            return sum(jnp.vdot(x, x) for x in outputs if jnp.issubdtype(x.dtype, jnp.floating))

        return jax.grad(loss)(params)

    both = scopes_of(jax.make_jaxpr(slope)(params, state, shapes, traced, key)) if leaves else forward
    rows = []
    for path, layer in {"": model, **layers_by_path(model)}.items():
        own = {name: leaf for name, leaf in leaves.items() if not path or name.startswith(path + "/")}
        before, after = (_under(path, counts) for counts in (forward, both))
        rows.append(
            SummaryRow(
                path,
                layer.label,
                _shape_of(outputs.get(path)),
                sum(leaf.size for leaf in own.values()),
                sum(leaf.size for name, leaf in own.items() if name in trained),
                sum(leaf.size for name, leaf in own.items() if name in shrunk),
                sum(leaf.size * leaf.dtype.itemsize for leaf in own.values()),
                before,
                max(after - before, 0),
            )
        )
    return Summary(tuple(rows))


def _under(path: str, counts: dict[str, int]) -> int:
    return sum(n for scope, n in counts.items() if not path or scope == path or scope.startswith(path + "/"))


def _shape_of(output: Any) -> str:
    return ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(output))


def _short(number: int, unit: str = "") -> str:
    """A number with four digits and a prefix: 1.527 M."""
    power = min(int(math.log10(number)) // 3, 5) if number else 0
    return f"{number / 1000**power:.4g} {' kMGTP'[power].strip()}{unit}".rstrip()
