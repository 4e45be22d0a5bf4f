"""What the layers made of other libraries' models have in common.

A *foreign* model is told of training in its own way: by an argument of its call, one of :data:`TRAINING`. What else
its call takes by name and has a default for are its side inputs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.errors import check_call, check_output, check_state, describe, note_trees
from purenets.layer import Key, Layer, Params, State, need_key, strong
from purenets.signature import MODES, signed

__all__ = ["TRAINING", "Shape", "examples", "foreign_layer", "library", "shape_of", "side_inputs_of"]

Shape: TypeAlias = Any
"""A tuple of sizes, which is float32, or anything that has a shape and a dtype."""

TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}
"""The argument by which a call is told of its mode, to what it is in training; it is the opposite otherwise."""


def library(name: str, package: str) -> Any:
    """An optional library, or an error that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {package}: pip install {package}") from error


def shape_of(shape: Shape) -> jax.ShapeDtypeStruct:
    """The shape and dtype of one input.

    Raises:
        TypeError: it is neither a tuple of sizes nor has a shape and a dtype.

    >>> shape_of((2, 3))
    ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """
    if hasattr(shape, "shape") and hasattr(shape, "dtype"):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype)
    if isinstance(shape, tuple) and all(isinstance(size, (int, str)) for size in shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)
    raise TypeError(
        f"an input is given as its shape, (32, 784), or as an array or jax.ShapeDtypeStruct, "
        f"got {describe(shape)}"
    )


def examples(shapes: Iterable[Shape]) -> list[jax.Array]:
    """What to initialise a model with: arrays as they are, zeros of the other shapes."""
    return [
        shape if isinstance(shape, jax.Array) else jnp.zeros(shape_of(shape).shape, shape_of(shape).dtype)
        for shape in shapes
    ]


def side_inputs_of(call: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a call takes by name and has a default for, but its modes, as keyword-only parameters."""
    return [
        p.replace(kind=p.KEYWORD_ONLY)
        for p in inspect.signature(call).parameters.values()
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.default is not p.empty
        and p.name not in (*TRAINING, *MODES)
    ]


def foreign_layer(
    label: str,
    init: Callable[[Key], tuple[Params, State]],
    call: Callable[..., tuple[Any, State]],
    keywords: list[inspect.Parameter] | None = None,
    no_key: Callable[[Exception], bool] = lambda _error: False,
) -> Layer:
    """A layer of a model that makes its params and state together.

    The state is that of the call in training and in a stream; otherwise it is the one given.

    Args:
        label: how messages call it.
        init: as that of a layer.
        call: ``call(params, state, inputs, key, train, changing, side) -> (output, state)``; *changing* says
            whether its state will be used.
        keywords: the side inputs, where they are known; otherwise any are passed on.
        no_key: whether an error is the library's own for random numbers without a key; one of ours takes its place.
    """
    known = None if keywords is None else {p.name for p in keywords}

    def apply(
        params: Params,
        state: State,
        *inputs: Any,
        key: Key | None = None,
        train: bool = False,
        stream: bool = False,
        **side: Any,
    ) -> tuple[Any, State]:
        check_call(label, params, state)
        # Said here, because a module that takes any keyword may also ignore it.
        for name in side:
            if known is not None and name not in known:
                raise TypeError(f"{label} got an unexpected keyword argument {name!r}")
        changing = train or stream
        try:
            own_key = key if train else None
            output, after = call(params, state, inputs, own_key, train, changing, side)
        except Exception as error:
            note_trees(error, label, init, params, state)
            if train and no_key(error):
                need_key(key, label)
            raise
        check_output(label, output)
        if not changing:
            return output, state
        check_state(label, state, after)
        return output, jax.tree.map(strong, after)

    def remake(parts: Any) -> Layer:
        if parts:
            raise ValueError(f"{label} has no parts, got {list(parts)}")
        return made

    made = Layer(init, signed(apply, keywords or ()), label, {}, remake)
    return made
