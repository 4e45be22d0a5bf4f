"""Where the arrays of a model stand in a torch model that is built like it.

A *place* is a layer that owns arrays. Each of its members under ``repeat`` has a *name*, which is the path of the layer
with the member's number after that of the ``repeat``: ``blocks/0/up`` and ``blocks/1/up`` of ``blocks/up``. That is
what torch's own names become when their dots are slashes, ``blocks.0.up.weight``.

Recurrent layers over each other are one module of torch, so :func:`~purenets.stacked` and
:func:`~purenets.bidirectional` have the names of that module, ``weight_ih_l1_reverse``. So are the three projections of
attention, unless they have names of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from purenets.interop.torch_layouts import Layout, layout_of, packed_attention
from purenets.layer import Layer
from purenets.paths import flatten, matching
from purenets.surgery import layers_by_path

__all__ = ["Place", "below", "core", "members_of", "numbers_of", "pack", "places_of", "stacked_by", "unpack"]

Member: TypeAlias = tuple[str, tuple[int, ...]]
"""A name, and where the member stands in stacked arrays."""
_Sizes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A layer that owns arrays."""

    path: str
    label: str
    members: list[Member]
    leaves: dict[str, str]
    """Name within the layer to path, ``params/head/kernel``."""
    layout: Layout
    suffix: str = ""
    """What torch puts after each name, of a recurrent layer."""


def places_of(
    model: Layer,
    tree: Mapping[str, Any],
    names: Collection[str] | None = (),
    flattened: Mapping[str, Sequence[int]] | None = None,
) -> list[Place]:
    """Every place of a model.

    Args:
        model: the model.
        tree: ``{"params": ..., "state": ...}``, of arrays or shapes.
        names: those of torch's arrays, as far as they are known: they tell which modules are one. With ``None`` none
            are, and each layer has names of its own.
        flattened: pattern of dense layers to what torch flattens ahead of them, ``(channels, *space)``.

    Raises:
        ValueError: a pattern matches no dense layer, or a shape does not fit it; a layer that comes after convolutions
            and a ``flatten`` is not named; or a layer has an array that torch's has not.
    """
    own = None if names is None else set(names)
    return _Walk(flatten(dict(tree)), own, _flattened(model, flattened or {})).visit(model, "", [("", ())])


def core(layer: Layer) -> Layer:
    """The layer inside all wrappers."""
    while layer.wrapped:
        layer = layer.wrapped[0]
    return layer


def stacked_by(layer: Layer) -> int:
    """How many members a ``repeat`` or ``ensemble`` has; 0 of any other layer."""
    if layer.wrapped and layer.label.startswith(("repeat(", "ensemble(")):
        return int(layer.label[:-1].rpartition(", ")[2])
    return 0


def members_of(layer: Layer, outer: list[Member]) -> list[Member]:
    """The members of what is inside the wrappers of a layer."""
    while layer.wrapped:
        if n := stacked_by(layer):
            outer = [(below(name, str(i)), (*index, i)) for name, index in outer for i in range(n)]
        layer = layer.wrapped[0]
    return outer


def below(path: str, name: str) -> str:
    """The path of what has this name within a layer; the model itself has the path ``""``."""
    return f"{path}/{name}" if path and name else path or name


def _inside(members: list[Member], name: str) -> list[Member]:
    return [(below(outer, name), index) for outer, index in members]


class _Walk:
    """The leaves of a model by path, the names in torch, and the shapes that are flattened, on the way through it."""

    def __init__(self, leaves: dict[str, Any], names: set[str] | None, flattened: dict[str, _Sizes]) -> None:
        self.leaves, self.names, self.flattened = leaves, names, flattened

    def visit(self, layer: Layer, path: str, members: list[Member], suffix: str = "_l0") -> list[Place]:
        if not self.under(path):
            return []
        members = members_of(layer, members)
        layer = core(layer)
        parts: dict[str, Layer] = dict(layer.parts)
        if layer.label.startswith(("attention(", "cross_attention(")):
            places = self.attention(layer, path, members, parts)
        elif rows := self.rows(layer, members):
            return [
                place
                for inner, part, ending in rows
                for place in self.visit(part, below(path, inner), members, ending)
            ]
        else:
            places = self.place(layer, path, members, self.own(path, parts), suffix)
        for name, part in parts.items():
            places += self.visit(part, below(path, name), _inside(members, name))
        return places

    def place(
        self, layer: Layer, path: str, members: list[Member], own: dict[str, str], suffix: str
    ) -> list[Place]:
        if not own:
            return []
        layout = layout_of(layer.label, self.shapes(own, members), self.flattened.get(path))
        return [Place(path, layer.label, members, own, layout, suffix if _is_rnn(layer) else "")]

    def attention(
        self, layer: Layer, path: str, members: list[Member], parts: dict[str, Layer]
    ) -> list[Place]:
        """Its places where queries, keys and values are one array; what they take is gone from ``parts``."""
        three = ("query", "key", "value")
        own = {
            f"{name}/{leaf}": full for name in three for leaf, full in self.own(below(path, name), ()).items()
        }
        layout = packed_attention(self.shapes(own, members))
        if layout is None or self.named(_inside(members, "query"), "weight"):
            return []
        out = self.visit(parts.pop("out"), below(path, "out"), _inside(members, "out_proj"))
        for name in three:
            del parts[name]
        return [Place(path, layer.label, members, own, layout), *out]

    def rows(self, layer: Layer, members: list[Member]) -> list[tuple[str, Layer, str]]:
        """The recurrent layers that are one module of torch, by path within, with their suffixes."""
        if _is_bidirectional(layer):
            groups = {"": layer}
        elif layer.label == "serial" and all(
            _is_rnn(p) or _is_bidirectional(p) for p in layer.parts.values()
        ):
            groups = dict(layer.parts)
        else:
            return []
        found = []
        for i, (name, part) in enumerate(groups.items()):
            both = {"forward": f"_l{i}", "backward": f"_l{i}_reverse"}
            inner = {"": f"_l{i}"} if _is_rnn(part) else both
            found += [
                (below(name, side), part.parts[side] if side else part, end) for side, end in inner.items()
            ]
        apart = any(self.named(_inside(members, path), "weight_ih_l0") for path, _, _ in found if path)
        return [] if apart else found

    def named(self, members: list[Member], leaf: str) -> bool:
        return self.names is None or any(below(name, leaf) in self.names for name, _ in members)

    def shapes(self, own: Mapping[str, str], members: list[Member]) -> dict[str, _Sizes]:
        """Of one member."""
        outer = len(members[0][1])
        return {name: tuple(np.shape(self.leaves[leaf])[outer:]) for name, leaf in own.items()}

    def under(self, path: str) -> list[str]:
        """The leaves at and below a path, in params and state."""
        heads = tuple(below(tree, path) + "/" for tree in ("params", "state"))
        return [leaf for leaf in self.leaves if leaf.startswith(heads)]

    def own(self, path: str, parts: Iterable[str]) -> dict[str, str]:
        """The leaves that belong to a layer itself, by their name within it."""
        found: dict[str, str] = {}
        for leaf in self.under(path):
            name = leaf.partition("/")[2].removeprefix(path).removeprefix("/")
            if name.split("/")[0] in parts:
                continue
            if name in found:
                raise ValueError(
                    f"{path} has {name} both in params and in state: in torch one would hide the other"
                )
            found[name] = leaf
        return found


def _is_rnn(layer: Layer) -> bool:
    return core(layer).label.startswith("rnn(") and not stacked_by(layer)


def _is_bidirectional(layer: Layer) -> bool:
    return list(layer.parts) == ["forward", "backward"] and all(map(_is_rnn, layer.parts.values()))


def _flattened(model: Layer, flattened: Mapping[str, Sequence[int]]) -> dict[str, _Sizes]:
    """Path of dense layers to what is flattened ahead of them."""
    labels = {path: core(layer).label for path, layer in layers_by_path(model).items()}
    widths = {path: numbers_of(label) for path, label in labels.items() if label.startswith("dense(")}
    found: dict[str, _Sizes] = {}
    for pattern, shape in flattened.items():
        for path in matching(pattern, widths, kind="dense layer"):
            if math.prod(shape) != widths[path][0]:
                raise ValueError(
                    f"{path} is {labels[path]}, and {tuple(shape)} has {math.prod(shape)} features when it is flattened"
                )
            found[path] = tuple(shape)
    channels, waiting = 0, False
    for path, label in labels.items():
        kind = label.split("(")[0]
        if kind in ("conv", "conv_transpose"):
            channels, waiting = numbers_of(label)[1], False
        elif kind == "flatten":
            waiting = channels > 0
        elif kind == "dense" and waiting:
            waiting = False
            # Of a single place in space nothing can be out of order.
            if path not in found and widths[path][0] != channels:
                raise ValueError(
                    f"{path}, {label}, follows a flatten of convolutions, whose features torch has in another order: "
                    f"give flattened={{{path!r}: (channels, height, width)}}, the shape in torch before it, or "
                    f"({widths[path][0]},) where the order is the same"
                )
    return found


def numbers_of(label: str) -> list[int]:
    """The numbers in a label, in order: the sizes of the layer."""
    return [int(number) for number in re.findall(r"\d+", label)]


def pack(places: list[Place], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of torch by name. Of ``jax.ShapeDtypeStruct`` come ``jax.ShapeDtypeStruct``."""
    found: dict[str, Any] = {}
    for place in places:
        own = {name: leaves[leaf] for name, leaf in place.leaves.items()}
        shapes_only = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in own.values())
        arrays = {name: _shape_of(leaf) if shapes_only else np.asarray(leaf) for name, leaf in own.items()}
        for member, index in place.members:
            theirs = place.layout.to_torch({name: array[index] for name, array in arrays.items()})
            for name, array in theirs.items():
                out = jax.ShapeDtypeStruct(array.shape, array.dtype) if shapes_only else array
                found[below(member, name + place.suffix)] = out
    return found


def _shape_of(leaf: Any) -> np.ndarray:
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def unpack(
    places: list[Place], arrays: Mapping[str, Any], leaves: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The leaves of the model by path, from torch's arrays; ``leaves`` gives their shapes."""
    found: dict[str, np.ndarray] = {}
    for place in places:
        outer = len(place.members[0][1])
        one = {
            name: _shape_of(jax.ShapeDtypeStruct(leaves[leaf].shape[outer:], leaves[leaf].dtype))
            for name, leaf in place.leaves.items()
        }
        named = list(place.layout.to_torch(one))
        each = [
            place.layout.to_ours(
                {name: np.asarray(arrays[below(member, name + place.suffix)]) for name in named}
            )
            for member, _ in place.members
        ]
        for name, leaf in place.leaves.items():
            found[leaf] = np.stack([own[name] for own in each]).reshape(leaves[leaf].shape)
    return found
