"""How torch lays out the arrays of each kind of layer, and how purenets does.

A *kind* is the name before the bracket of a layer's label. What is done to an array follows from the kind of the layer
that owns it and never from its shape, since a square kernel does not tell whether it is turned round.

====================  ==============================================  ===============================================
kind                  here                                            torch
====================  ==============================================  ===============================================
dense                 ``kernel [in, out]``                            ``weight [out, in]``
conv                  ``kernel [*window, in / groups, out]``          ``weight [out, in / groups, *window]``
conv_transpose        ``kernel [*window, in, out]``                   ``weight [in, out, *window]``, window reversed
norms                 ``scale``, ``bias``; ``mean``, ``var``          ``weight``, ``bias``; ``running_mean``, ...
embedding             ``embedding [size, dim]``                       ``weight [size, dim]``
to_heads, from_heads  ``kernel [in, heads, head_dim]`` and back       ``weight [heads * head_dim, in]`` and back
attention             ``query/kernel``, ``key/kernel``, ...           ``in_proj_weight [3 dim, dim]``, ``in_proj_bias``
rnn                   ``kernel``, ``recurrent_kernel``, ``bias``      ``weight_ih``, ``weight_hh``, ``bias_ih``, ...
====================  ==============================================  ===============================================

The gates of a recurrent layer stand in the same order in both: i, f, g, o and r, z, n. torch adds two biases where one
is enough. They are summed on the way here; on the way back the sum is ``bias_ih`` and ``bias_hh`` is zero, but for the
part of a GRU's that is multiplied by the reset gate, which is ``recurrent_bias`` here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

__all__ = ["Arrays", "Layout", "layout_of", "packed_attention"]

Arrays: TypeAlias = dict[str, np.ndarray]
"""The arrays of one layer by their names within it."""
_Turn: TypeAlias = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """The arrays of one layer to those of torch, and back."""

    to_torch: Callable[[Arrays], Arrays]
    to_ours: Callable[[Arrays], Arrays]


def layout_of(
    label: str, shapes: dict[str, tuple[int, ...]], flattened: tuple[int, ...] | None = None
) -> Layout:
    """The layout of a layer; one of a kind that is not in the table has the same arrays in both.

    Args:
        label: of the layer, without its wrappers.
        shapes: of its own arrays by name, of one member.
        flattened: of a dense layer: what torch flattens ahead of it, ``(channels, *space)``.

    Raises:
        ValueError: the layer has an array that torch's layer of its kind has not.
    """
    kind = label.split("(")[0]
    if kind == "rnn":
        return _recurrent(label, shapes)
    if kind not in _BY_LEAF:
        return Layout(dict, dict)
    table = _BY_LEAF[kind]
    if flattened is not None:
        table = {**table, "kernel": _dense_after(flattened)}
    if strange := sorted(set(shapes) - set(table)):
        raise ValueError(f"{label} has {', '.join(strange)}, which torch's layer of its kind has not")
    turns = {name: table[name](shapes[name]) for name in shapes}

    def to_torch(own: Arrays) -> Arrays:
        return {turns[name][0]: turns[name][1](array) for name, array in own.items()}

    def to_ours(theirs: Arrays) -> Arrays:
        return {name: back(theirs[named]) for name, (named, _, back) in turns.items()}

    return Layout(to_torch, to_ours)


_Leaf: TypeAlias = Callable[[tuple[int, ...]], tuple[str, _Turn, _Turn]]
"""From the shape here: the name there, the way there and the way back."""


def _same(name: str) -> _Leaf:
    return lambda shape: (name, lambda x: x, lambda x: x)


def _transposed(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:  # noqa: ARG001
    return "weight", np.transpose, np.transpose


def _dense_after(flattened: tuple[int, ...]) -> _Leaf:
    channels, *space = flattened

    def turns(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:
        n_in, n_out = shape

        def to_torch(x: np.ndarray) -> np.ndarray:
            return np.moveaxis(x.reshape(*space, channels, n_out), (-2, -1), (1, 0)).reshape(n_out, n_in)

        def to_ours(x: np.ndarray) -> np.ndarray:
            return np.moveaxis(x.reshape(n_out, channels, *space), (1, 0), (-2, -1)).reshape(n_in, n_out)

        return "weight", to_torch, to_ours

    return turns


def _conv(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:  # noqa: ARG001
    to_torch = lambda x: np.moveaxis(x, (-1, -2), (0, 1))
    return "weight", to_torch, lambda x: np.moveaxis(x, (0, 1), (-1, -2))


def _conv_transpose(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:
    window = tuple(range(len(shape) - 2))
    to_torch = lambda x: np.moveaxis(np.flip(x, window), (-2, -1), (0, 1))
    return "weight", to_torch, lambda x: np.flip(np.moveaxis(x, (0, 1), (-2, -1)), window)


def _to_heads(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:
    return "weight", lambda x: x.reshape(shape[0], -1).T, lambda x: x.T.reshape(shape)


def _from_heads(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:
    return "weight", lambda x: x.reshape(-1, shape[-1]).T, lambda x: x.T.reshape(shape)


def _flat(shape: tuple[int, ...]) -> tuple[str, _Turn, _Turn]:
    return "bias", np.ravel, lambda x: x.reshape(shape)


_BIAS = {"bias": _same("bias")}
_NORM = {"scale": _same("weight"), **_BIAS}
_BY_LEAF: dict[str, dict[str, _Leaf]] = {
    "dense": {"kernel": _transposed, **_BIAS},
    "conv": {"kernel": _conv, **_BIAS},
    "conv_transpose": {"kernel": _conv_transpose, **_BIAS},
    "to_heads": {"kernel": _to_heads, "bias": _flat},
    "from_heads": {"kernel": _from_heads, **_BIAS},
    "embedding": {"embedding": _same("weight")},
    "learned_positions": {"embedding": _same("weight")},
    "batch_norm": {**_NORM, "mean": _same("running_mean"), "var": _same("running_var")},
    "layer_norm": _NORM,
    "rms_norm": _NORM,
    "group_norm": _NORM,
    "instance_norm": _NORM,
}


def _recurrent(label: str, shapes: dict[str, tuple[int, ...]]) -> Layout:
    known = {"kernel", "recurrent_kernel", "bias", "recurrent_bias"}
    if strange := sorted(set(shapes) - known):
        raise ValueError(f"{label} has {', '.join(strange)}, which torch's recurrent layers have not")
    n_out, gates = shapes["recurrent_kernel"]
    kept = 2 * n_out if "recurrent_bias" in shapes else gates

    def to_torch(own: Arrays) -> Arrays:
        out = {"weight_ih": own["kernel"].T, "weight_hh": own["recurrent_kernel"].T}
        if "bias" in own:
            other = np.zeros_like(own["bias"], shape=(gates,))
            other[kept:] = own.get("recurrent_bias", 0)
            out |= {"bias_ih": own["bias"], "bias_hh": other}
        return out

    def to_ours(theirs: Arrays) -> Arrays:
        out = {"kernel": theirs["weight_ih"].T, "recurrent_kernel": theirs["weight_hh"].T}
        if "bias" in shapes:
            bias, other = theirs["bias_ih"], theirs["bias_hh"]
            out["bias"] = np.concatenate([bias[:kept] + other[:kept], bias[kept:]])
        if "recurrent_bias" in shapes:
            out["recurrent_bias"] = theirs["bias_hh"][kept:]
        return out

    return Layout(to_torch, to_ours)


def packed_attention(shapes: dict[str, tuple[int, ...]]) -> Layout | None:
    """The layout of queries, keys and values in one array; ``None`` where their sizes differ too much for it."""
    shape = shapes["query/kernel"]
    if any(shapes[f"{name}/kernel"] != shape for name in ("key", "value")) or shape[0] != math.prod(
        shape[1:]
    ):
        return None

    def to_torch(own: Arrays) -> Arrays:
        rows = {"in_proj_weight": [], "in_proj_bias": []}  # type: dict[str, list[np.ndarray]]
        for name in ("query", "key", "value"):
            rows["in_proj_weight"].append(own[f"{name}/kernel"].reshape(shape[0], -1).T)
            if f"{name}/bias" in own:
                rows["in_proj_bias"].append(own[f"{name}/bias"].ravel())
        return {name: np.concatenate(parts) for name, parts in rows.items() if parts}

    def to_ours(theirs: Arrays) -> Arrays:
        out = {}
        for i, name in enumerate(("query", "key", "value")):
            out[f"{name}/kernel"] = np.split(theirs["in_proj_weight"], 3)[i].T.reshape(shape)
            if "in_proj_bias" in theirs:
                out[f"{name}/bias"] = np.split(theirs["in_proj_bias"], 3)[i].reshape(shape[1:])
        return out

    return Layout(to_torch, to_ours)
