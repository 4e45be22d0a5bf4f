"""Fully sharded params are gathered where they are used: those of stacked layers one layer at a time.

Under ``fully`` every large param lies in parts on the devices along an axis. Gathered all at once, before the layers
run, they would need the memory that spreading them was to save. So each step of the scan in :func:`purenets.repeat`
gathers its own layer; the backward pass gathers it again instead of keeping it, and spreads its gradient before that is
stacked (Rajbhandari et al. 2020; Zhao et al. 2023). Params outside of ``repeat`` are gathered once.

It is the model that is changed, so this is for objectives that have one, those of :func:`purenets.supervised`, with a
penalty or without; for others all params are gathered once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import NamedSharding

from purenets.layer import Key, Layer, Params, State
from purenets.lift import wrapper
from purenets.parallel.rules import Rules, shardings, sliced
from purenets.paths import flatten, unflatten
from purenets.regularizers import Regularized
from purenets.train.objective import Metrics, Objective, Supervised

__all__ = ["gathering", "layerwise", "slices"]

Places = dict[str, tuple[NamedSharding, NamedSharding]]
"""Path of a param to how it lies, and how it lies where it is used."""

# What these make of gathered weights is made again in the backward pass rather than kept.
_MOVES = frozenset({"sharding_constraint", "reshape", "transpose", "squeeze", "broadcast_in_dim"})


def gathering(objective: Objective, mesh: Any, rules: Rules, fully: str) -> Objective:
    """The objective on params that lie as ``shardings(params, mesh, rules, fully=fully)`` says."""
    if isinstance(objective, Regularized):
        return replace(objective, objective=gathering(objective.objective, mesh, rules, fully))

    def gathered(
        params: Params, state: State, batch: Any, key: Key | None, train: bool
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        places = _places(params, mesh, rules, fully)
        own, later = _layerwise(objective, places)
        flat = {
            path: _gathered(leaf, *places[path]) if path in places and path not in later else leaf
            for path, leaf in flatten(params).items()
        }
        return own(unflatten(flat), state, batch, key, train)

    return gathered


def slices(objective: Objective, params: Params, mesh: Any, rules: Rules, fully: str) -> dict[str, int]:
    """The params that are gathered, by path: into how many slices that are gathered one after another."""
    if isinstance(objective, Regularized):
        return slices(objective.objective, params, mesh, rules, fully)
    places = _places(params, mesh, rules, fully)
    _, later = _layerwise(objective, places)
    flat = flatten(params)
    return {path: math.prod(flat[path].shape[: later.get(path, 0)]) for path in places}


def _places(params: Params, mesh: Any, rules: Rules, fully: str) -> Places:
    lie, used = (flatten(shardings(params, mesh, rules, fully=axis)) for axis in (fully, None))
    return {path: (lie[path], used[path]) for path in lie if lie[path] != used[path]}


def _layerwise(objective: Objective, places: Places) -> tuple[Objective, dict[str, int]]:
    if not isinstance(objective, Supervised):
        return objective, {}
    model, later = layerwise(objective.model, places)
    return replace(objective, model=model), later


def _gathered(leaf: jax.Array, lies: NamedSharding, used: NamedSharding) -> jax.Array:
    # Backwards the first of these spreads the gradient.
    leaf = jax.lax.with_sharding_constraint(leaf, lies)
    return jax.lax.with_sharding_constraint(leaf, used)


def layerwise(model: Layer, places: Places) -> tuple[Layer, dict[str, int]]:
    """The model whose repeated layers gather their own params; these by path, with their number of stacked axes."""
    later: dict[str, int] = {}
    return _walk(model, "", 0, places, later), later


def _walk(layer: Layer, path: str, stacked: int, places: Places, later: dict[str, int]) -> Layer:
    """The layer at a path, below so many axes of stacking."""
    if layer.wrapped is None:
        parts = {
            name: _walk(part, _join(path, name), stacked, places, later) for name, part in layer.parts.items()
        }
        return layer.remake(parts) if any(parts[name] is not layer.parts[name] for name in parts) else layer
    inner, again = layer.wrapped
    repeated = layer.label.startswith("repeat(")
    deeper = stacked + (repeated or layer.label.startswith("ensemble("))
    new = _walk(inner, path, deeper, places, later)
    if repeated:
        prefix = _join(path, "")
        own = {
            at.removeprefix(prefix): (sliced(lies, deeper), sliced(used, deeper))
            for at, (lies, used) in places.items()
            if at.startswith(prefix) and at not in later and not any(lies.spec[:deeper])
        }
        later |= {prefix + at: deeper for at in own}
        # Where the backward pass runs a whole layer again, that includes the gathering.
        new = _gathers(new, own, again=not layer.label.endswith("remat=True)")) if own else new
    return layer if new is inner else again(new)


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name not in _MOVES


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _gathers(layer: Layer, places: Places, again: bool) -> Layer:
    """A layer that gathers its own params, with ``again`` in the backward pass a second time."""
    if layer.wrapped is not None and layer.label.startswith("cast("):
        inner, cast = layer.wrapped
        return cast(_gathers(inner, places, again))  # cast before they are gathered, they are smaller

    def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
        def run(params: Params, state: State, inputs: Any, key: Key | None) -> tuple[Any, State]:
            flat = {
                path: _gathered(leaf, *places[path]) if path in places else leaf
                for path, leaf in flatten(params).items()
            }
            # The backward pass draws the same masks again, which is no reuse of a key by mistake.
            own_key = None if key is None else jax.random.clone(key)
            return layer.apply(unflatten(flat), state, *inputs, **{**keywords, "key": own_key})

        go = jax.checkpoint(run, prevent_cse=False, policy=_is_kept) if again else run
        return go(params, state, inputs, keywords.get("key"))

    return wrapper(layer, layer.label, lambda inner: _gathers(inner, places, again), apply)
