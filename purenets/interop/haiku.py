"""A transformed Haiku function as a layer."""

from __future__ import annotations

from typing import Any

from purenets.errors import describe
from purenets.interop.foreign import Shape, examples, foreign_layer, library
from purenets.layer import Key, Layer, Params, State
from purenets.paths import flatten, unflatten

__all__ = ["from_haiku"]


def from_haiku(transformed: Any, *shapes: Shape, train: str | None = None) -> Layer:
    """A function transformed by ``haiku.transform_with_state`` as a layer.

    Haiku's ``params["mlp/~/linear_0"]["w"]`` is ``mlp/~/linear_0/w`` here, and the same in the state, which
    changes in training and in a stream.

    Args:
        transformed: what ``haiku.transform_with_state`` returned.
        shapes: of its inputs, each a tuple of sizes (float32) or something that has a shape and a dtype. An array
            is itself the example that initial values may depend on; otherwise it is zeros.
        train: the keyword by which the function is told of training, such as ``is_training``; none by default.

    Raises:
        ImportError: Haiku is not installed.
        TypeError: it is not a transformed function with state, or a shape is none.
        ValueError: when called, in training without a key: the function draws random numbers.

    ::

        model = from_haiku(hk.transform_with_state(net), (1, 784), train="is_training")
    """
    hk = library("haiku", "dm-haiku")
    if not isinstance(transformed, hk.TransformedWithState):
        error = TypeError(f"from_haiku needs a function with state, got {describe(transformed)}")
        error.add_note("transform it by hk.transform_with_state(function)")
        raise error
    inputs = examples(shapes)

    def mode(on: bool) -> dict[str, bool]:
        return {} if train is None else {train: on}

    def init(key: Key) -> tuple[Params, State]:
        params, state = transformed.init(key, *inputs, **mode(True))
        return _ours(params), _ours(state)

    def call(
        params: Params, state: State, inputs: Any, key: Key | None, train: bool, changing: bool, side: Any
    ) -> tuple[Any, State]:
        output, after = transformed.apply(
            _theirs(params), _theirs(state), key, *inputs, **mode(train), **side
        )
        return output, _ours(after) if changing else state

    no_key = lambda error: isinstance(error, ValueError) and "PRNGKey" in str(error)
    return foreign_layer("haiku function", init, call, no_key=no_key)


def _ours(tree: Any) -> dict[str, Any]:
    return unflatten(
        {f"{module}/{name}": leaf for module, leaves in tree.items() for name, leaf in leaves.items()}
    )


def _theirs(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One level of modules and one of names, as Haiku has them."""
    out: dict[str, dict[str, Any]] = {}
    for path, leaf in flatten(tree).items():
        module, _, name = path.rpartition("/")
        out.setdefault(module, {})[name] = leaf
    return out
