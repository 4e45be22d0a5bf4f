"""What the layers of a model give out for a batch, and which units give nothing.

A *unit* is one feature of a layer's output, an entry of its last axis; all other axes are examples. A ReLU unit that
is zero for every example is *dead*: no gradient passes it, and nothing but a change further back brings it to life.

The numbers are made inside the model, where the outputs are, so that none is held: under ``repeat`` and ``ensemble``
there are those of each member. Of a layer that is called several times they are of its last call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.checks import at_least_float32
from purenets.inspect.table import text_table
from purenets.layer import Key, Layer, Params, State
from purenets.lift import wrapper
from purenets.paths import Where, matching
from purenets.surgery import edit, layer_paths, layers_by_path, taps, untapped

__all__ = ["Activity", "LayerActivity", "activity", "dead_units"]


class LayerActivity(NamedTuple):
    """The output of one layer, ``[]`` each, or ``[members]`` under ``repeat`` and ``ensemble``."""

    mean: jax.Array
    deviation: jax.Array
    """The root of the mean squared distance from the mean."""
    zeros: jax.Array
    """The share of entries that are zero."""
    dead: jax.Array
    """The share of units that are zero for all examples."""


class Activity(NamedTuple):
    """What :func:`activity` found; ``str`` makes a table of it, and it is a pytree."""

    layers: dict[str, LayerActivity]
    """By path of the layer; the model itself is ``""``."""

    def __str__(self) -> str:
        rows = []
        for path, found in self.layers.items():
            numbers = [np.asarray(leaf, np.float64) for leaf in found]
            for member in np.ndindex(numbers[0].shape):
                mean, deviation, zeros, dead = (float(leaf[member]) for leaf in numbers)
                name = "".join([path or "(the model)", *(f"[{i}]" for i in member)])
                rows.append((name, f"{mean:.4g}", f"{deviation:.4g}", f"{zeros:.1%}", f"{dead:.1%}"))
        columns = ("layer", "mean", "deviation", "zeros", "dead units")
        return text_table(columns, rows, right=columns[1:])


def activity(
    model: Layer,
    params: Params,
    state: State,
    *inputs: Any,
    key: Key | None = None,
    train: bool = False,
    **side: Any,
) -> Activity:
    """Mean, deviation, zeros and dead units of every layer's output, in float32 at least.

    Layers whose output is not one array of numbers are left out.

    Args:
        model: whose layers.
        params: the model's.
        state: the model's.
        inputs: a batch of each input.
        key: as that of ``apply``.
        train: the mode.
        side: side inputs.

    >>> import purenets as pn
    >>> model = pn.serial(relu=jax.nn.relu)
    >>> print(activity(model, {}, {}, jnp.array([[-1.0, 2.0], [-3.0, 4.0]])))
     layer         mean   deviation   zeros   dead units
    ─────────────────────────────────────────────────────
     relu           1.5       1.658   50.0%        50.0%
     (the model)    1.5       1.658   50.0%        50.0%
    """
    found = _measured(
        _activity, model, layer_paths(model), params, state, *inputs, key=key, train=train, **side
    )
    return Activity({path: one for path in [*layer_paths(model), ""] if (one := found.get(path)) is not None})


def dead_units(
    model: Layer,
    params: Params,
    state: State,
    *inputs: Any,
    where: Where | None = None,
    key: Key | None = None,
    train: bool = False,
    **side: Any,
) -> dict[str, jax.Array]:
    """Which units of the ReLU layers are zero for all examples, by path of the layer.

    Args:
        model: whose units.
        params: the model's.
        state: the model's.
        inputs: a batch of each input; give many examples, since a unit may wake for one that is not among them.
        where: which layers to look at, by default all that are ``jax.nn.relu``.
        key: as that of ``apply``.
        train: the mode.
        side: side inputs.

    Returns:
        Path to bool ``[units]``, or ``[members, units]`` under ``repeat`` and ``ensemble``; ``.mean()`` of it is
        their share.

    Raises:
        ValueError: the model has no such layer, or its output is not one array of numbers.

    >>> import purenets as pn
    >>> model = pn.serial(relu=jax.nn.relu)
    >>> dead_units(model, {}, {}, jnp.array([[-1.0, 2.0], [-3.0, -4.0]]))["relu"].tolist()
    [True, False]
    """
    if where is None:
        chosen = [path for path, layer in layers_by_path(model).items() if layer.label == "relu"]
        if not chosen:
            raise ValueError(
                f"{model.label} has no layer that is jax.nn.relu: name layers by where=, there are "
                f"{layer_paths(model)}"
            )
    else:
        chosen = list(matching(where, layer_paths(model), kind="layer"))
    found = _measured(_silent, model, chosen, params, state, *inputs, key=key, train=train, **side)
    if missing := [path for path in chosen if found.get(path) is None]:
        raise ValueError(
            f"dead_units needs layers whose output is one array of numbers, {missing} give others"
        )
    return {path: found[path] for path in chosen}


def _measured(
    measure: Callable[[jax.Array], Any],
    model: Layer,
    where: list[str],
    params: Params,
    state: State,
    *inputs: Any,
    **keywords: Any,
) -> dict[str, Any]:
    """What ``measure`` makes of the output of the model and of its layers at these paths, by path."""

    def measuring(layer: Layer) -> Layer:
        def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
            output, after = layer.apply(params, _without_tap(state), *inputs, **keywords)
            after = _without_tap(after)  # the layer may be a tap of the model's own
            numbers = hasattr(output, "dtype") and (
                jnp.issubdtype(output.dtype, jnp.floating) or jnp.issubdtype(output.dtype, jnp.integer)
            )
            return output, {**after, "tap": measure(output)} if numbers else after

        return wrapper(layer, layer.label, measuring, apply)

    watched = measuring(edit(model, where, measuring) if where else model)
    return taps(watched.apply(params, untapped(state), *inputs, **keywords)[1])


def _without_tap(state: State) -> State:
    return {name: entry for name, entry in state.items() if name != "tap"}


def _activity(output: jax.Array) -> LayerActivity:
    wide = at_least_float32(output)
    zero = output == 0
    return LayerActivity(
        wide.mean(), wide.std(), zero.mean(dtype=wide.dtype), _silent(output).mean(dtype=wide.dtype)
    )


def _silent(output: jax.Array) -> jax.Array:
    examples = range(output.ndim - 1) or range(output.ndim)  # ``[batch]`` is of one unit
    return (output == 0).all(tuple(examples))
