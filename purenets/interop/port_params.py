"""What can be wrong with ported params and still have the right shapes, by the kind of the layer.

Each mistake is given with the params that there would have to be, so that it can be tried. Axes are counted from the
last, so that params stacked by ``repeat`` are changed in all members alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from purenets.interop.torch_places import numbers_of
from purenets.layer import Layer

__all__ = ["other_params"]

Own: TypeAlias = Mapping[str, Any]
"""The params of one layer by name, those of its parts among them."""
Changes: TypeAlias = Iterator[tuple[str, dict[str, np.ndarray]]]
"""What would be wrong, and the params that differ then."""

_GATES = {"lstm_cell": "ifgo", "gru_cell": "rzn"}


def other_params(layer: Layer, own: Own, flattened: Sequence[tuple[int, ...]] = ()) -> Changes:
    """Every known mistake that fits a layer.

    Args:
        layer: without wrappers.
        own: its params.
        flattened: shapes of an example ahead of a flatten, ``(*space, channels)``.
    """
    kind = layer.label.split("(")[0]
    own = {name: np.asarray(leaf) for name, leaf in own.items()}
    if kind == "dense":
        yield from _dense(own["kernel"], flattened)
    elif kind == "embedding":
        if (table := own["embedding"]).shape[-1] == table.shape[-2]:
            yield "its table is transposed", {"embedding": table.mT}
    elif kind in ("to_heads", "from_heads"):
        yield from _heads(own["kernel"], layer)
    elif kind in ("conv", "conv_transpose"):
        yield from _conv(own["kernel"], layer)
    elif kind == "rnn":
        yield from _recurrent(own, layer.label.removeprefix("rnn(").split("(")[0])
    elif kind in ("attention", "cross_attention"):
        yield from _projections(own)
    if kind.endswith("_norm") and "scale" in own:
        yield "its scale is stored less one (1 + weight)", {"scale": own["scale"] + 1}
        if "bias" in own:
            yield "its scale and bias are exchanged", {"scale": own["bias"], "bias": own["scale"]}
    elif "bias" in own:
        yield "its bias is not there in the reference", {"bias": np.zeros_like(own["bias"])}


def _dense(kernel: np.ndarray, flattened: Sequence[tuple[int, ...]]) -> Changes:
    n_in, n_out = kernel.shape[-2:]
    if n_in == n_out:
        yield "its kernel is transposed", {"kernel": kernel.mT}
    for *space, channels in dict.fromkeys(flattened):
        if math.prod(space) * channels == n_in and math.prod(space) > 1:
            first = kernel.reshape(*kernel.shape[:-2], channels, *space, n_out)
            last = np.moveaxis(first, kernel.ndim - 2, -2).reshape(kernel.shape)
            shape = (channels, *space)
            yield (
                f"its features are those of a flatten with channels first: flattened={shape}",
                {"kernel": last},
            )


def _heads(kernel: np.ndarray, layer: Layer) -> Changes:
    first = layer.label.startswith("to_heads")
    width, heads, size = numbers_of(layer.label) if first else (numbers_of(layer.label)[i] for i in (2, 0, 1))
    outer = kernel.shape[:-3]
    flat = (
        kernel.reshape(*outer, width, heads * size) if first else kernel.reshape(*outer, heads * size, width)
    )
    if width == heads * size:
        yield "its kernel is transposed", {"kernel": flat.mT.reshape(kernel.shape)}
    if heads > 1 and size > 1:
        if first:
            turned = flat.reshape(*outer, width, size, heads).swapaxes(-1, -2)
        else:
            turned = flat.reshape(*outer, size, heads, width).swapaxes(-2, -3)
        yield "its heads are interleaved: [head_dim, heads] instead of [heads, head_dim]", {"kernel": turned}


def _conv(kernel: np.ndarray, layer: Layer) -> Changes:
    given = layer.label.partition(", ")[2].partition(", ")[2]
    rank = given.count(",") + 1 - given.count(",)") if "(" in given else 2
    window = tuple(range(kernel.ndim - 2 - rank, kernel.ndim - 2))
    sizes = [kernel.shape[axis] for axis in window]
    if kernel.shape[-1] == kernel.shape[-2]:
        yield "its kernel has input and output channels exchanged", {"kernel": kernel.mT}
    if max(sizes) > 1:
        yield "its window is turned round", {"kernel": np.flip(kernel, window)}
    if rank == 2 and sizes[0] == sizes[1] > 1:
        yield "its window has height and width exchanged", {"kernel": kernel.swapaxes(*window)}


def _recurrent(own: Own, cell: str) -> Changes:
    gates = _GATES.get(cell, "h")
    n = len(gates)

    def split(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(*leaf.shape[:-1], n, -1)

    def joined(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(*leaf.shape[:-2], -1)

    gated = {name: own[name] for name in ("kernel", "recurrent_kernel", "bias") if name in own}
    for there in itertools.permutations(gates):
        if there != tuple(gates):
            order = [there.index(gate) for gate in gates]
            changed = {name: joined(split(leaf)[..., order, :]) for name, leaf in gated.items()}
            yield f"its gates stand in the order {', '.join(there)}", changed
    for name in ("kernel", "recurrent_kernel"):
        leaf = split(own[name])
        if leaf.shape[-1] == leaf.shape[-3]:
            yield f"its {name} is transposed within each gate", {name: joined(leaf.swapaxes(-1, -3))}
    if cell == "gru_cell":
        sign = np.array([[1], [-1], [1]], own["kernel"].dtype)
        changed = {name: joined(split(leaf) * sign) for name, leaf in gated.items()}
        yield "its update gate keeps what ours replaces: h' = z n + (1 - z) h", changed


def _projections(own: Own) -> Changes:
    names = ("query", "key", "value")
    for there in itertools.permutations(names):
        leaves = [name.partition("/")[2] for name in own if name.startswith("query/")]
        changed = {
            f"{ours}/{leaf}": own[f"{theirs}/{leaf}"]
            for ours, theirs in zip(names, (names[there.index(name)] for name in names), strict=True)
            for leaf in leaves
        }
        same = all(own[name].shape == leaf.shape for name, leaf in changed.items())
        if there != names and same:
            yield f"its projections stand in the order {', '.join(there)}", changed
