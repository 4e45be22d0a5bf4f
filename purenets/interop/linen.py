"""A Flax linen module as a layer: its params as they are, its other collections as the state."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from purenets.errors import describe
from purenets.interop.foreign import TRAINING, Shape, examples, foreign_layer, library, side_inputs_of
from purenets.layer import Key, Layer, Params, State, fold_name

__all__ = ["from_linen"]


def from_linen(module: Any, *shapes: Shape, rngs: Sequence[str] = ("dropout",)) -> Layer:
    """A linen module as a layer.

    ``params`` are Flax's, in plain dicts without boxes; ``state`` has its other collections by name, such as
    ``batch_stats/BatchNorm_0/mean``. These change in training and in a stream, and are read otherwise. A ``train``,
    ``training``, ``is_training``, ``deterministic`` or ``use_running_average`` among the arguments of the module's
    ``__call__`` is given by the layer, but where the module has it as a field that is set. Arguments that have a
    default are the side inputs.

    Args:
        module: a linen module, made and not initialised.
        shapes: of its inputs, each a tuple of sizes (float32) or something that has a shape and a dtype. An array
            is itself the example that initial values may depend on; otherwise it is zeros.
        rngs: the names of the random streams that it draws from in training.

    Raises:
        ImportError: Flax is not installed.
        TypeError: it is not a linen module, or a shape is none.
        ValueError: when called, in training without a key: it draws random numbers.
        flax.errors.InvalidRngError: when called, in training: it draws from a stream that is not named here.

    >>> import jax, flax.linen as nn
    >>> model = from_linen(nn.Dense(3), (1, 2))
    >>> params, state = model.init(jax.random.key(0))
    >>> jax.tree.map(lambda leaf: leaf.shape, params), state
    ({'bias': (3,), 'kernel': (2, 3)}, {})
    """
    flax, nn = library("flax", "flax"), library("flax.linen", "flax")
    if not isinstance(module, nn.Module):
        error = TypeError(f"from_linen needs a linen module, got {describe(module)}")
        if isinstance(module, type) and issubclass(module, nn.Module):
            error.add_note(f"it is a class: call it, {module.__name__}(...)")
        raise error
    inputs = examples(shapes)
    keywords = side_inputs_of(type(module).__call__)
    label = f"linen {type(module).__name__}"
    training = _training(module)

    def init(key: Key) -> tuple[Params, State]:
        streams = {name: fold_name(key, name) for name in ("params", *rngs)}
        variables = module.init(streams, *inputs, **_mode(training, train=False))
        plain = flax.core.unfreeze(nn.meta.unbox(variables))
        return plain.pop("params", {}), {name: tree for name, tree in plain.items() if tree}

    def call(
        params: Params, state: State, inputs: Any, key: Key | None, train: bool, changing: bool, side: Any
    ) -> tuple[Any, State]:
        streams = None if key is None else {name: fold_name(key, name) for name in rngs}
        mutable = list(state) if changing else False
        variables = {"params": params, **state}
        modes = _mode(training, train)
        try:
            result = module.apply(variables, *inputs, rngs=streams, mutable=mutable, **modes, **side)
        except flax.errors.InvalidRngError as error:
            if key is not None:
                error.add_note(f"{label} was given the streams {tuple(rngs)}: name others with rngs=(...)")
            raise
        if not changing:
            return result, state
        output, changed = result
        return output, {**state, **flax.core.unfreeze(changed)}

    no_key = lambda error: isinstance(error, flax.errors.InvalidRngError)
    return foreign_layer(label, init, call, keywords, no_key)


def _training(module: Any) -> dict[str, bool]:
    """The mode arguments of its call, to what they are in training; one set as a field is not given again."""
    taken = inspect.signature(type(module).__call__).parameters
    return {
        name: on for name, on in TRAINING.items() if name in taken and getattr(module, name, None) is None
    }


def _mode(training: dict[str, bool], train: bool) -> dict[str, bool]:
    return {name: on == train for name, on in training.items()}
