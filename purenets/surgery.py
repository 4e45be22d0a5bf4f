"""Looking into a model and changing it: every layer is found by its path, as every parameter is.

:func:`edit` replaces the layers that a pattern names. :func:`tap` makes a layer keep its output in the state,
so capture is surgery plus the state channel; :func:`taps` reads what was kept. :func:`outline` prints a
model, :func:`out_shape` and :func:`check` run it on shapes alone and allocate nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenets.errors import check_state, describe
from purenets.layer import Key, Layer, Params, State, as_layer
from purenets.lift import wrapper
from purenets.paths import Where, flatten, matching, unflatten

__all__ = [
    "abstract",
    "check",
    "edit",
    "inside",
    "layer_paths",
    "layers_by_path",
    "out_shape",
    "outline",
    "tap",
    "taps",
    "untapped",
]


def layer_paths(model: Layer) -> list[str]:
    """The path of every layer inside the model, outer before inner.

    >>> from purenets.compose import serial
    >>> layer_paths(serial(jnp.sin, block=serial(jnp.cos)))
    ['sin_1', 'block', 'block/cos_1']
    """
    return list(layers_by_path(model))


def layers_by_path(model: Layer) -> dict[str, Layer]:
    """Every layer inside the model by its path, outer before inner; the model itself is not among them."""
    found: dict[str, Layer] = {}
    for name, part in model.parts.items():
        found[name] = part
        found.update({f"{name}/{path}": layer for path, layer in layers_by_path(part).items()})
    return found


def edit(model: Layer, where: Where, fn: Callable[[Layer], Layer | Callable[..., Any]]) -> Layer:
    """The model with ``fn(layer)`` in place of each layer that a pattern names; the rest is as it was.

    Parts are edited before the layers they are in.

    Raises:
        ValueError: a pattern matches no layer; the message lists the layers.

    >>> from purenets.compose import serial
    >>> edit(serial(jnp.sin, jnp.cos), "cos_*", lambda old: jnp.tanh).parts
    {'sin_1': sin, 'cos_1': tanh}
    """
    return _edit(model, "", set(matching(where, layer_paths(model), kind="layer")), fn)


def _edit(layer: Layer, path: str, chosen: set[str], fn: Callable[[Layer], Any]) -> Layer:
    prefix = f"{path}/" if path else ""
    parts = {name: _edit(part, prefix + name, chosen, fn) for name, part in layer.parts.items()}
    if any(parts[name] is not layer.parts[name] for name in parts):
        layer = layer.remake(parts)
    return as_layer(fn(layer), path) if path in chosen else layer


def inside(fn: Callable[[Layer], Layer | Callable[..., Any]]) -> Callable[[Layer], Layer]:
    """``fn`` applied to the layer that a wrapper wraps, for :func:`edit`.

    A wrapper and the layer in it have one path. ``edit(model, "blocks", tap)`` keeps the output of the whole
    ``repeat(block, 12)``, ``edit(model, "blocks", inside(tap))`` that of each of the 12.

    Raises:
        ValueError: the layer is not a wrapper.
    """

    def on(layer: Layer) -> Layer:
        if layer.wrapped is None:
            raise ValueError(f"{layer.label} is not a wrapper: edit it without inside")
        inner, again = layer.wrapped
        return again(as_layer(fn(inner), layer.label))

    return on


def tap(layer: Layer) -> Layer:
    """The same layer, which also keeps its last output in its state under ``tap``.

    The first application adds the entry, since its shape is known only then; from then on the state that
    comes out is like the state that went in. Outputs are unchanged.
    """

    def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
        own = {name: value for name, value in state.items() if name != "tap"}
        output, own = layer.apply(params, own, *inputs, **keywords)
        return output, {**own, "tap": output}

    return wrapper(layer, f"tap({layer.label})", tap, apply)


def taps(state: State) -> dict[str, Any]:
    """What the taps in a state have kept: path of the layer to its last output.

    Under ``repeat`` and ``ensemble`` the outputs of all members are stacked along a first axis. A tap on the
    model itself has the path ``""``.
    """
    found: dict[str, Any] = {}
    for name, entry in state.items():
        if name == "tap":
            found[""] = entry
        elif isinstance(entry, dict):
            found.update({f"{name}/{path}" if path else name: out for path, out in taps(entry).items()})
    return found


def out_shape(layer: Layer, *shape: int, dtype: Any = jnp.float32) -> tuple[int, ...]:
    """The shape of the output for an input of this shape; nothing is allocated.

    Raises:
        ValueError: the layer has several outputs, or refuses the input.

    >>> from purenets.layer import function
    >>> out_shape(function(lambda x: x.reshape(x.shape[0], -1)), 1, 28, 28, 1)
    (1, 784)
    """
    params, state = jax.eval_shape(layer.init, jax.random.key(0))
    output, _ = jax.eval_shape(layer.apply, params, state, jax.ShapeDtypeStruct(shape, dtype))
    if not hasattr(output, "shape"):
        raise ValueError(
            f"{layer.label} has several outputs, {describe(output)}: use jax.eval_shape on its apply"
        )
    return tuple(output.shape)


def check(model: Layer, *inputs: Any, **side: Any) -> Any:
    """Run a model on shapes alone, in both modes, and hold it to the rules of a layer.

    Args:
        model: the layer to check.
        inputs: one shape per input, ``(32, 784)`` for float32, or anything with ``shape`` and ``dtype``.
        side: side inputs, likewise; any other value is given as it is.

    Returns:
        The output in evaluation as ``jax.ShapeDtypeStruct``.

    Raises:
        TypeError: an input is not a shape.
        ValueError: an input does not fit, params or state are not nested plain dicts of arrays, or the
            state that comes out is not like the state that went in. The message has the path.
    """
    key = jax.random.key(0)
    params, state = jax.eval_shape(model.init, key)
    for tree, kind in ((params, "params"), (state, "state")):
        _check_plain(tree, kind)
    xs = [abstract(shape) for shape in inputs]
    if wrong := [x for x in xs if not isinstance(x, jax.ShapeDtypeStruct)]:
        raise TypeError(f"check takes shapes such as (32, 784), got {describe(wrong[0])}")
    extra = {name: abstract(value) for name, value in side.items()}
    traced = {name: value for name, value in extra.items() if isinstance(value, jax.ShapeDtypeStruct)}

    def output_of(train: bool) -> Any:
        def call(params: Params, state: State, xs: list[Any], traced: dict[str, Any], key: Key) -> Any:
            return model.apply(params, state, *xs, key=key, train=train, **{**extra, **traced})

        output, after = jax.eval_shape(call, params, state, xs, traced, key)
        check_state(f"{model.label} in {'training' if train else 'evaluation'}", state, untapped(after))
        return output

    output_of(True)
    return output_of(False)


def abstract(value: Any) -> Any:
    """The shape and dtype that are meant; a value that is neither a shape nor an array is left as it is."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return jax.ShapeDtypeStruct(value.shape, value.dtype)
    if isinstance(value, (tuple, list)) and all(isinstance(size, int) for size in value):
        return jax.ShapeDtypeStruct(tuple(value), jnp.float32)
    return value


def untapped(state: State) -> State:
    """The state without the entries that taps add."""
    flat = {path: leaf for path, leaf in flatten(state).items() if "tap" not in path.split("/")}
    return unflatten(flat)


def _check_plain(tree: Any, path: str) -> None:
    for name, value in tree.items():
        here = f"{path}/{name}"
        if not isinstance(name, str) or "/" in name:
            raise ValueError(f"{path} has the entry {name!r}: names are strings without a slash")
        if isinstance(value, dict):
            if not value:
                raise ValueError(f"{here} is an empty dict: leave the entry out")
            _check_plain(value, here)
        elif not hasattr(value, "dtype"):
            raise ValueError(f"{here} is {describe(value)}: only arrays and dicts of them may stand here")


def outline(model: Layer) -> str:
    """The model as an indented text: each part, its label and the parameters that are its own.

    >>> from purenets.compose import serial
    >>> print(outline(serial(jnp.sin, jnp.cos)))
    serial     0 parameters
      sin_1    sin
      cos_1    cos
    """
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    rows = [(model.label, f"{count:,} parameters", _own(model, params)), *_outline(model, params, "  ")]
    names, labels = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{names}}  {label:<{labels}}  {own}".rstrip() for name, label, own in rows)


def _own(layer: Layer, params: Params) -> str:
    own = {name: leaf for name, leaf in params.items() if name not in layer.parts}
    return ", ".join(f"{path} {list(leaf.shape)}" for path, leaf in flatten(own).items())


def _outline(layer: Layer, params: Params, indent: str) -> list[tuple[str, str, str]]:
    rows = []
    for name, part in layer.parts.items():
        inner = params.get(name, {})
        rows.append((indent + name, part.label, _own(part, inner)))
        rows += _outline(part, inner, indent + "  ")
    return rows
