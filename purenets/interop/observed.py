"""What every layer of a model took in and gave out in one application, in the order in which they ran.

An *observation* is of one layer, or of one of its members under ``repeat`` and ``ensemble``, which has the member's
number in its name as in :mod:`purenets.interop.torch_places`: ``blocks/0/up``. Of a layer that runs several times it is
of the last. A ``repeat`` itself is observed as a whole too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from purenets.interop.torch_places import Member, below, members_of, stacked_by
from purenets.layer import Layer, Params, State
from purenets.lift import wrapper
from purenets.surgery import edit, taps, untapped

__all__ = ["Observation", "observe"]


@dataclass(frozen=True)
class Observation:
    """One layer, with what it computed from what."""

    name: str
    layer: Layer
    params: Params
    state: State
    inputs: tuple[Any, ...]
    side: dict[str, Any]
    """Side inputs and modes."""
    output: Any


def observe(model: Layer, params: Params, state: State, *inputs: Any, **side: Any) -> list[Observation]:
    """One application in evaluation, as observations in the order in which the layers gave their outputs.

    The model itself is the last one, under the name ``""``.
    """
    count = itertools.count()
    fixed: dict[int, dict[str, Any]] = {}

    def recorded(layer: Layer) -> Layer:
        def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
            output, after = layer.apply(params, _without_tap(state), *inputs, **keywords)
            arrays = {name: given for name, given in keywords.items() if hasattr(given, "dtype")}
            order = next(count)
            fixed[order] = {name: given for name, given in keywords.items() if name not in arrays}
            kept = {"order": jnp.int32(order), "inputs": inputs, "side": arrays, "output": output}
            return output, {**_without_tap(after), "tap": kept}

        return wrapper(layer, layer.label, recorded, apply)

    state = untapped(state)
    watch = _in_members(recorded)
    watched = watch(edit(model, "**", watch) if model.parts else model)
    kept = taps(watched.apply(params, state, *inputs, **side)[1])
    begins = {path: int(jnp.min(tap["order"])) for path, tap in kept.items()}
    found: list[tuple[tuple[float, ...], Observation]] = []
    for path, layer, members, loops in _walk(model, "", [("", ())], []):
        if path not in kept:
            continue
        tap, own, memory = kept[path], _below(params, path), _below(state, path)
        given = {**_at((0,) * len(loops), tap["side"]), **fixed[begins[path]]}
        for name, index in members:
            # All that is inside a loop runs for one member before any of it runs for the next.
            place = [
                number for loop, i in zip(loops, index, strict=True) for number in (_begin(begins, loop), i)
            ]
            one, weights, carried = (_at(index, tree) for tree in (tap, own, memory))
            seen = Observation(name, _member_of(layer), weights, carried, one["inputs"], given, one["output"])
            found.append(((*place, begins[path]), seen))
        if loops == [path]:
            output = _at((-1,), tap["output"]) if _is_repeat(layer) else tap["output"]
            seen = Observation(path, layer, own, memory, _at((0,), tap["inputs"]), given, output)
            found.append(((begins[path] + 0.5,), seen))
    return [seen for _, seen in sorted(found, key=lambda pair: pair[0])]


def _walk(
    layer: Layer, path: str, outer: list[Member], loops: list[str]
) -> Iterator[tuple[str, Layer, list[Member], list[str]]]:
    """Every layer with its members, and the paths of the loops around them."""
    members = members_of(layer, outer)
    loops = [*loops, *[path] * (len(members[0][1]) - len(outer[0][1]))]
    yield path, layer, members, loops
    for name, part in layer.parts.items():
        yield from _walk(part, below(path, name), [(below(m, name), index) for m, index in members], loops)


def _in_members(fn: Callable[[Layer], Layer]) -> Callable[[Layer], Layer]:
    """``fn`` of the layer inside all loops, or of the whole layer where it has none."""

    def on(layer: Layer) -> Layer:
        if layer.wrapped is None or not _has_loop(layer):
            return fn(layer)
        inner, again = layer.wrapped
        return again(on(inner))

    return on


def _member_of(layer: Layer) -> Layer:
    while _has_loop(layer) and layer.wrapped:
        layer = layer.wrapped[0]
    return layer


def _has_loop(layer: Layer) -> bool:
    return bool(stacked_by(layer)) or (layer.wrapped is not None and _has_loop(layer.wrapped[0]))


def _is_repeat(layer: Layer) -> bool:
    while layer.wrapped and not stacked_by(layer):
        layer = layer.wrapped[0]
    return layer.label.startswith("repeat(")


def _begin(begins: dict[str, int], loop: str) -> int:
    """When the first of what is inside a loop gave its output."""
    return min(
        order for path, order in begins.items() if path == loop or path.startswith(f"{loop}/") or not loop
    )


def _below(tree: dict[str, Any], path: str) -> Any:
    for name in path.split("/") if path else []:
        tree = tree.get(name, {})
    return tree


def _at(index: tuple[int, ...], tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _without_tap(state: State) -> State:
    return {name: entry for name, entry in state.items() if name != "tap"}
