"""A layer is a pair of pure functions, and a model is a layer that is inside no other. Read this first.

::

    init(key)                              -> params, state
    apply(params, state, *inputs, key=None, train=False, stream=False, **side) -> output, state

*params* and *state* are nested plain dicts of arrays and nothing else: no functions, no ``None``, no empty
dicts. Gradients are taken with respect to params; state is what a layer carries from one call to the next
(running statistics, the memory of a recurrent layer). The state that comes out has the structure, shapes and
dtypes of the state that went in, so a layer is a legal ``lax.scan`` body.

*key* goes to the top call only. A part's key is derived from its name and the number of the call, so adding
a sibling changes nobody's weights or masks. *train* and *stream* are Python bools given at the call.
*stream* means: this input is the next stretch of a longer sequence. *side* inputs (``mask=``, ``lengths=``)
are keyword arguments that a layer declares; an unknown one is Python's own ``TypeError``.

:func:`layer` makes a layer of two small functions. Layers are wired together in ``compose.py``, lifted
(repeated, vmapped, frozen, cast) in ``lift.py`` and edited in ``surgery.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.errors import check_call, check_output, check_state, describe, note_trees
from purenets.signature import MODES, keywords_of, signed

__all__ = [
    "Key",
    "Layer",
    "Params",
    "State",
    "as_layer",
    "describe",
    "fold_name",
    "function",
    "identity",
    "layer",
    "name_code",
    "need_key",
    "no_memory",
    "open_stream",
    "stateless",
    "strong",
]

Key: TypeAlias = jax.Array
"""A typed random key, of ``jax.random.key``."""
Params: TypeAlias = dict[str, Any]
"""What is learnt: nested plain dicts of arrays."""
State: TypeAlias = dict[str, Any]
"""What a layer carries from one call to the next: nested plain dicts of arrays."""


def no_memory(batch: int, length: int) -> State:  # noqa: ARG001
    """The memory of a layer that keeps nothing over time: no entries."""
    return {}


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A pair of pure functions, and what is needed to print and edit it.

    ``init`` and ``apply`` are the model. It hashes by identity, so it is a valid static argument of
    ``jax.jit`` (the same object, not one built again), and it is not a pytree.
    """

    init: Callable[[Key], tuple[Params, State]]
    apply: Callable[..., tuple[Any, State]]
    label: str
    """``dense(784, 128)``, for messages and summaries."""
    parts: Mapping[str, Layer]
    """Name to layer, for looking inside and for surgery."""
    remake: Callable[[Mapping[str, Layer]], Layer]
    """The same layer of other parts."""
    memory: Callable[[int, int], State] = no_memory
    """``memory(batch, length)``: the entries that :func:`open_stream` adds to the state."""
    wrapped: tuple[Layer, Callable[[Layer], Layer]] | None = None
    """Of a wrapper such as ``repeat``: the layer inside, and the wrapper as a function of it."""

    def __repr__(self) -> str:
        return self.label


def name_code(name: str) -> int:
    """The number that stands for a name in keys."""
    return zlib.crc32(name.encode())


def fold_name(key: Key, name: str) -> Key:
    """The key of a named part or parameter: it depends on the name alone, not on its siblings.

    Raises:
        TypeError: the key is not a typed key.
    """
    if not jnp.issubdtype(getattr(key, "dtype", jnp.float32), jax.dtypes.prng_key):
        raise TypeError(f"a typed key is needed, jax.random.key(0), got {describe(key)}")
    return jax.random.fold_in(key, name_code(name))


def need_key(key: Key | None, label: str) -> Key:
    """The key, or an error that says what to write, for a layer that is random in training."""
    if key is None:
        raise ValueError(
            f"{label} is random in training and got no key: "
            "write apply(params, state, x, key=jax.random.key(0), train=True)"
        )
    return key


def strong(x: Any) -> jax.Array:
    """The value as an array that keeps its dtype among others: a weak one would change type in a loop."""
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype) if getattr(x, "weak_type", False) else x


def layer(
    init: Callable[[Key], Params] | None,
    fn: Callable[..., Any],
    *,
    state: Callable[[Key], State] | None = None,
    memory: Callable[[int, int], State] | None = None,
    label: str | None = None,
) -> Layer:
    """A layer of two small functions; state, keys and modes appear only when wanted.

    Args:
        init: ``init(key) -> params``, or ``None`` for a layer without parameters.
        fn: ``fn(params, *inputs) -> output``. The keyword-only arguments it names are what it is given:
            ``key``, ``train`` and ``stream`` are the modes, any other is a side input. With ``state`` or
            ``memory`` it is ``fn(params, state, *inputs) -> (output, state)``.
        state: ``state(key) -> state``, the state to start from.
        memory: ``memory(batch, length)``, what :func:`open_stream` adds to the state.
        label: how messages and summaries call it; the name of ``fn`` by default.

    Raises:
        TypeError: ``fn`` takes a mode by position, where it would never be given. When called: params or
            state are not dicts, or ``fn`` returns something else than it should.
        ValueError: when called, the state that comes out is not like the state that went in.

    Errors raised by a call whose params or state do not fit carry a note that says which were expected.

    >>> scale = layer(lambda key: {"scale": jnp.ones(3)}, lambda p, x: x * p["scale"], label="scale(3)")
    >>> params, state = scale.init(jax.random.key(0))
    >>> scale.apply(params, state, jnp.arange(3.0))
    (Array([0., 1., 2.], dtype=float32), {})
    """
    keywords = keywords_of(fn)
    wanted = [p.name for p in keywords if p.name in MODES]
    stateful = state is not None or memory is not None
    name = label or str(getattr(fn, "__name__", "layer"))

    def init_pair(key: Key) -> tuple[Params, State]:
        params = {} if init is None else init(key)
        # The state's key is another one: init may have used up its own.
        start = {} if state is None else state(fold_name(key, "state"))
        for tree, kind in ((params, "params"), (start, "state")):
            if not isinstance(tree, dict):
                raise TypeError(f"{name} needs a dict of arrays as {kind}, its init gave {describe(tree)}")
        return params, start

    def apply(
        params: Params,
        state: State,
        *inputs: Any,
        key: Key | None = None,
        train: bool = False,
        stream: bool = False,
        **side: Any,
    ) -> tuple[Any, State]:
        check_call(name, params, state)
        modes = {"key": key, "train": train, "stream": stream}
        side.update({mode: modes[mode] for mode in wanted})
        try:
            if stateful:
                # A copy, so that a function that assigns to its state changes nobody else's.
                result = fn(params, jax.tree.map(lambda leaf: leaf, state), *inputs, **side)
            else:
                result = fn(params, *inputs, **side), state
        except Exception as error:
            note_trees(error, name, init_pair, params, state)
            raise
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise TypeError(
                f"{name} has state, so its function must return (output, state), got {describe(result)}"
            )
        output, new_state = result
        check_output(name, output)
        check_state(name, state, new_state)
        return output, jax.tree.map(strong, new_state) if stateful else state

    def remake(parts: Mapping[str, Layer]) -> Layer:
        if parts:
            raise ValueError(f"{name} has no parts, got {list(parts)}")
        return made

    made = Layer(init_pair, signed(apply, keywords), name, {}, remake, memory or no_memory)
    return made


def function(fn: Callable[..., Any]) -> Layer:
    """A plain function of arrays, such as ``jax.nn.relu``, as a layer without parameters."""
    plain = getattr(fn, "func", fn)
    label = getattr(plain, "__name__", type(plain).__name__).replace("<lambda>", "function")

    def call(_params: Params, *inputs: Any) -> Any:
        output = fn(*inputs)
        if isinstance(output, Layer):
            raise _uncalled(label)
        return output

    return layer(None, call, label=label)


identity = layer(None, lambda _params, x: x, label="identity")
"""The layer that returns its input."""


def _uncalled(label: str) -> TypeError:
    return TypeError(f"{label} makes layers and is not one: call it, {label}(...), and use what it returns")


def as_layer(part: Any, name: str) -> Layer:
    """A part as a layer: a layer as it is, a function lifted.

    Raises:
        TypeError: it is neither, or it is a constructor of layers that was not called.
    """
    if isinstance(part, Layer):
        return part
    if not callable(part):
        raise TypeError(f"part {name!r} must be a layer or a function, got {describe(part)}")
    returns = getattr(part, "__annotations__", {}).get("return")
    if returns is Layer or (isinstance(returns, str) and returns.split(".")[-1] == "Layer"):
        raise _uncalled(part.__name__)
    return function(part)


def open_stream(model: Layer, state: State, *, batch: int, length: int) -> State:
    """The state with memory for ``batch`` sequences of at most ``length`` steps, for ``stream=True``."""
    return _overlay(state, model.memory(batch, length))


def _overlay(state: State, entries: State) -> State:
    out = dict(state)
    for name, value in entries.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = _overlay(out[name], value) if both else value
    return out


def stateless(model: Layer) -> Callable[..., Any]:
    """``f(params, *inputs, ...) -> output`` of a model that has no state.

    Raises:
        ValueError: the model has state; the message lists it.
    """
    _, state = jax.eval_shape(model.init, jax.random.key(0))
    if state:
        raise ValueError(
            f"{model.label} has state {describe(state)}: "
            "call apply(params, state, x) and keep the state it returns"
        )

    def f(params: Params, *inputs: Any, **keywords: Any) -> Any:
        return model.apply(params, {}, *inputs, **keywords)[0]

    return f
