"""An Equinox module as a layer: its floating arrays as params, its other arrays as the state, the rest fixed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax

from purenets.errors import describe
from purenets.interop.foreign import foreign_layer, library, side_inputs_of
from purenets.layer import Key, Layer, Params, State, strong
from purenets.paths import flatten, path_of, unflatten

__all__ = ["from_equinox"]


def from_equinox(build: Callable[[Any], Any], *, batch: str | None = "batch") -> Layer:
    """An Equinox module as a layer.

    Equinox's modules take one example; the layer takes a batch of them and gives each a key of its own. Names are
    the module's attributes, ``layers/0/weight``. What a module with state keeps in ``eqx.nn.State`` is numbered,
    ``state/0``, and changes in training and in a stream.

    Args:
        build: a function of a key that makes a module, or a module and its ``eqx.nn.State`` as of
            ``eqx.nn.make_with_state``; or either one as it is, whose values are then the initial ones whatever
            the key.
        batch: the name of the batch axis, for modules that average over it; ``None`` where the module takes whole
            batches itself.

    Raises:
        ImportError: Equinox is not installed.
        TypeError: it is none of these.
        ValueError: when called, in training without a key: the module draws random numbers.

    ::

        model = from_equinox(lambda key: eqx.nn.MLP(784, 10, 128, 2, key=key))
    """
    eqx = library("equinox", "equinox")
    given = build
    if isinstance(given, (eqx.Module, tuple)):
        build = lambda _key: given
    elif isinstance(given, type) or not callable(given):
        what = given.__name__ if isinstance(given, type) else describe(given)
        raise TypeError(
            f"from_equinox needs a module or a function of a key, lambda key: Model(..., key=key), got {what}"
        )
    skeleton = eqx.filter_eval_shape(build, jax.random.key(0))
    module, kept = skeleton if isinstance(skeleton, tuple) else (skeleton, None)
    if not isinstance(module, eqx.Module) or not isinstance(kept, (eqx.nn.State, type(None))):
        raise TypeError(f"from_equinox needs an Equinox module, got {describe(skeleton)}")
    label = f"equinox {type(module).__name__}"
    keywords = [p for p in side_inputs_of(type(module).__call__) if p.name != "state"]
    keyed = "key" in inspect.signature(type(module).__call__).parameters

    def init(key: Key) -> tuple[Params, State]:
        built = build(key)
        arrays, memory = built if isinstance(built, tuple) else (built, None)
        return _apart(eqx, arrays, memory)

    def call(
        params: Params, state: State, inputs: Any, key: Key | None, train: bool, changing: bool, side: Any
    ) -> tuple[Any, State]:
        values = {
            **flatten(params),
            **flatten({name: tree for name, tree in state.items() if name != "state"}),
        }
        one = eqx.nn.inference_mode(_filled(module, values), value=not train)
        memory = None if kept is None else _filled(kept, flatten(state["state"]), numbered=True)

        def run(inputs: Any, key: Any) -> Any:
            extra = {"key": key} if keyed else {}
            if memory is None:
                return one(*inputs, **extra, **side), None
            return one(*inputs, memory, **extra, **side)

        if batch is None:
            output, after = run(inputs, key)
        else:
            count = jax.tree.leaves(inputs)[0].shape[0]
            keys = None if key is None else jax.random.split(key, count)
            output, after = jax.vmap(run, out_axes=(0, None), axis_name=batch, axis_size=count)(inputs, keys)
        if after is None or not changing:
            return output, state
        return output, {**state, **_apart(eqx, None, after)[1]}

    no_key = lambda error: isinstance(error, RuntimeError) and "key" in str(error)
    return foreign_layer(label, init, call, keywords, no_key)


def _apart(eqx: Any, module: Any, memory: Any) -> tuple[Params, State]:
    """Params; and the state: arrays that are not floating under their paths, what is remembered by number."""
    named = [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(module)[0]]
    params = {path: leaf for path, leaf in named if eqx.is_inexact_array(leaf)}
    others = {path: leaf for path, leaf in named if eqx.is_array(leaf) and path not in params}
    numbered = {str(i): strong(leaf) for i, leaf in enumerate(jax.tree.leaves(memory))}
    return unflatten(params), {**unflatten(others), **({"state": numbered} if numbered else {})}


def _filled(skeleton: Any, values: dict[str, Any], numbered: bool = False) -> Any:
    """The skeleton with arrays in the places of their shapes, by path or by number."""
    named, form = jax.tree_util.tree_flatten_with_path(skeleton)
    names = [str(i) if numbered else path_of(path) for i, (path, _) in enumerate(named)]
    leaves = [
        values[name] if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
        for name, (_, leaf) in zip(names, named, strict=True)
    ]
    return jax.tree.unflatten(form, leaves)
