"""A Flax nnx module as a layer: its ``nnx.Param`` variables as params, its other variables as the state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenets.errors import describe
from purenets.interop.foreign import foreign_layer, library, side_inputs_of
from purenets.layer import Key, Layer, Params, State, fold_name, need_key
from purenets.paths import flatten, unflatten

__all__ = ["from_nnx"]


def from_nnx(build: Callable[[Any], Any]) -> Layer:
    """An nnx module as a layer.

    Names are the module's attributes, ``layers/0/kernel``. In training the module is put in ``module.train()``, and
    otherwise in ``module.eval()``. The random streams that it holds are no part of the state: in training they
    begin anew with every call, from the call's key.

    Args:
        build: a function of ``nnx.Rngs`` that makes the module; or a module, whose values are then the initial
            ones whatever the key.

    Raises:
        ImportError: Flax is not installed.
        TypeError: it is neither, or makes something that is no nnx module.
        ValueError: when called, in training: the module holds random streams, and there is no key.

    >>> from flax import nnx
    >>> model = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params, state = model.init(jax.random.key(0))
    >>> jax.tree.map(jnp.shape, params), state
    ({'bias': (3,), 'kernel': (2, 3)}, {})
    """
    nnx = library("flax.nnx", "flax")
    given = build
    if isinstance(given, nnx.Module):
        build = lambda _rngs: nnx.clone(given)
    elif isinstance(given, type) or not callable(given):
        what = given.__name__ if isinstance(given, type) else describe(given)
        raise TypeError(
            f"from_nnx needs an nnx module or a function of rngs, lambda rngs: Model(..., rngs=rngs), got {what}"
        )
    made = nnx.eval_shape(lambda: build(nnx.Rngs(jax.random.key(0))))
    if not isinstance(made, nnx.Module):
        raise TypeError(f"from_nnx needs a function that makes an nnx module, got one of {describe(made)}")
    graph, skeleton = nnx.split(made)
    kinds = dict(nnx.to_flat_state(skeleton))
    label = f"nnx {type(made).__name__}"
    random = [path for path, kind in kinds.items() if isinstance(kind, nnx.RngState)]

    def taken_apart(module: Any) -> tuple[Params, State]:
        leaves = {path: _value(leaf) for path, leaf in nnx.to_flat_state(nnx.state(module))}
        params = [path for path in kinds if isinstance(kinds[path], nnx.Param)]
        others = [path for path in kinds if path not in params and path not in random]
        return _dicts({p: leaves[p] for p in params}), _dicts({p: leaves[p] for p in others})

    def init(key: Key) -> tuple[Params, State]:
        return taken_apart(build(nnx.Rngs(key)))

    def streams(key: Key) -> dict[Any, jax.Array]:
        """The values of the random streams: keys by path, counts at 0."""
        return {
            path: fold_name(key, _name(path))
            if isinstance(kinds[path], nnx.RngKey)
            else jnp.zeros(kinds[path].shape, kinds[path].dtype)
            for path in random
        }

    def call(
        params: Params, state: State, inputs: Any, key: Key | None, train: bool, changing: bool, side: Any
    ) -> tuple[Any, State]:
        ours = {**flatten(params), **flatten(state)}
        start = (need_key(key, label) if train else jax.random.key(0)) if random else None
        drawn = {} if start is None else streams(start)
        leaves = {path: drawn[path] if path in drawn else ours[_name(path)] for path in kinds}
        module = nnx.merge(graph, nnx.from_flat_state(leaves))
        if train:
            module.train()
        else:
            module.eval()
        output = module(*inputs, **side)
        return output, taken_apart(module)[1] if changing else state

    keywords: list[inspect.Parameter] = side_inputs_of(type(made).__call__)
    return foreign_layer(label, init, call, keywords)


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


def _dicts(leaves: dict[Any, Any]) -> dict[str, Any]:
    return unflatten({_name(path): leaf for path, leaf in leaves.items()})


def _value(leaf: Any) -> Any:
    return leaf.get_value() if hasattr(leaf, "get_value") else leaf
