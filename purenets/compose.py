"""Layers wired together in ordinary Python.

:func:`compose` turns a body ``body(m, *inputs)`` into a layer; ``m`` is a
:class:`~purenets.wiring.Wiring`, which holds the parts by name. :func:`serial`, :func:`residual` and
:func:`branch` are a few lines over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from purenets.errors import check_call, check_output, describe
from purenets.layer import Key, Layer, Params, State, as_layer, fold_name, identity, name_code
from purenets.signature import MODES, keywords_of, side_inputs, signed
from purenets.wiring import Wiring

__all__ = ["Wiring", "branch", "compose", "residual", "serial"]

_RESERVED = {"train", "stream", "tap"}


def _checked_parts(parts: Mapping[str, Any]) -> dict[str, Layer]:
    codes: dict[int, str] = {}
    for name in parts:
        if not name or name.startswith("_") or name in _RESERVED or set(name) & set("/*{},"):
            raise ValueError(f"{name!r} cannot name a part: it is reserved, or not a plain name")
        if (other := codes.setdefault(name_code(name), name)) != name:
            raise ValueError(f"{other!r} and {name!r} have the same code in keys: rename one of them")
    return {name: as_layer(part, name) for name, part in parts.items()}


def compose(**parts: Layer | Callable[..., Any]) -> Callable[[Callable[..., Any]], Layer]:
    """Wire layers together in ordinary Python: a decorator that turns a body into a layer.

    The body is ``body(m, *inputs, **side)``; ``m.name(...)`` runs the part of that name. Its keyword-only
    arguments are the side inputs of the layer. Parts without params or state leave no entry in the trees.
    The label is the name of the body. Inside the body everything is allowed that JAX allows, but a part that
    has state cannot be called under a ``jax.vmap``, ``lax.scan`` or ``jax.grad`` of the body's own.

    Raises:
        ValueError: a name is reserved or is not a plain name.
        TypeError: a part is neither a layer nor a function, or the body takes ``key``, ``train`` or
            ``stream`` as an argument.

    >>> import jax
    >>> from purenets.layer import layer
    >>> double = layer(lambda key: {"factor": jnp.float32(2)}, lambda p, x: p["factor"] * x, label="double")
    >>> @compose(first=double, second=double)
    ... def block(m, x):
    ...     return x + m.second(m.first(x))
    >>> params, state = block.init(jax.random.key(0))
    >>> block.apply(params, state, jnp.ones(2))[0]
    Array([5., 5.], dtype=float32)
    """
    checked = _checked_parts(parts)

    def wire(body: Callable[..., Any]) -> Layer:
        label = getattr(body, "__name__", "composed")
        if modes := [p.name for p in keywords_of(body) if p.name in MODES]:
            raise TypeError(
                f"{label} takes {modes[0]!r}, which a body does not get: "
                "m.train and m.stream are the modes, and what needs a key is made a part"
            )
        return _composed(checked, body, label)

    return wire


def _composed(
    parts: Mapping[str, Layer],
    body: Callable[..., Any],
    label: str,
    again: Callable[[dict[str, Layer]], Layer] | None = None,
) -> Layer:
    keywords = keywords_of(body)
    declared = side_inputs(body)

    def init(key: Key) -> tuple[Params, State]:
        pairs = {name: part.init(fold_name(key, name)) for name, part in parts.items()}
        params = {name: params for name, (params, _) in pairs.items() if params}
        state = {name: state for name, (_, state) in pairs.items() if state}
        return params, state

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
        for tree, kind in ((params, "params"), (state, "state")):
            if strangers := set(tree) - set(parts):
                raise ValueError(
                    f"{label} has no part {sorted(strangers)} for these {kind}; its parts are {list(parts)}"
                )
        if unknown := set(side) - declared:
            raise TypeError(
                f"{label} got an unexpected keyword argument {sorted(unknown)[0]!r}; "
                f"its side inputs are {sorted(declared)}: a body declares them after a bare *"
            )
        wiring = Wiring(parts, params, state, key, train, stream)
        try:
            output = body(wiring, *inputs, **side)
        finally:
            wiring._open = False
        check_output(label, output)
        return output, wiring._state

    def remake(new: Mapping[str, Layer]) -> Layer:
        if set(new) != set(parts):
            raise ValueError(f"{label} has parts {list(parts)}, got {list(new)}")
        checked = _checked_parts({name: new[name] for name in parts})
        return again(checked) if again else _composed(checked, body, label)

    def memory(batch: int, length: int) -> State:
        entries = {name: part.memory(batch, length) for name, part in parts.items()}
        return {name: entry for name, entry in entries.items() if entry}

    return Layer(init, signed(apply, keywords), label, dict(parts), remake, memory)


def _passing(parts: Mapping[str, Layer], body: Callable[..., Any], label: str) -> Layer:
    """A composition whose side inputs go to every part that declares them; ``body(run, *inputs)``."""
    takes = {name: side_inputs(part.apply) for name, part in parts.items()}

    def wired(m: Wiring, *inputs: Any, **side: Any) -> Any:
        def run(name: str, *xs: Any) -> Any:
            return m[name](*xs, **{kind: given for kind, given in side.items() if kind in takes[name]})

        return body(run, *inputs)

    declared = {p.name: p for part in parts.values() for p in keywords_of(part.apply)}
    signed(wired, declared.values())
    return _composed(parts, wired, label, lambda new: _passing(new, body, label))


def serial(*layers: Layer | Callable[..., Any], **named: Layer | Callable[..., Any]) -> Layer:
    """One layer after another; plain functions such as ``jax.nn.relu`` are welcome.

    Layers given by position are named by their kind and their number among that kind: ``dense_1``,
    ``dense_2``, so an activation or dropout put in between renames nothing; a wrapper has the kind of the
    layer inside, so wrapping one renames nothing either. A side input goes to every part that declares it.

    Raises:
        ValueError: a given name is also the name of a layer given by position.
        TypeError: a part is neither a layer nor a function.

    >>> serial(jnp.sin, jnp.cos, out=jnp.tanh).parts
    {'sin_1': sin, 'cos_1': cos, 'out': tanh}
    """
    parts: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for item in layers:
        part = as_layer(item, "of serial")
        kind = _kind(part)
        counts[kind] = counts.get(kind, 0) + 1
        parts[f"{kind}_{counts[kind]}"] = part
    if twice := set(parts) & set(named):
        raise ValueError(f"serial has two parts called {sorted(twice)}: name one of them otherwise")
    parts = _checked_parts({**parts, **named})

    def body(run: Callable[..., Any], *inputs: Any) -> Any:
        for name in parts:
            inputs = (run(name, *inputs),)
        return inputs[0]

    return _passing(parts, body, "serial")


def _kind(part: Layer) -> str:
    while part.wrapped:
        part, _ = part.wrapped
    return part.label.split("(")[0]


def residual(body: Layer | Callable[..., Any], skip: Layer | Callable[..., Any] = identity) -> Layer:
    """The sum of a body and a shortcut: ``body(x) + skip(x)`` (He et al. 2016, equation 1).

    A side input goes to either that declares it.

    Raises:
        ValueError: body and shortcut give different shapes.
    """

    def add(out: Any, short: Any) -> Any:
        if jnp.shape(out) != jnp.shape(short):
            error = ValueError(f"residual cannot add body {describe(out)} to skip {describe(short)}")
            error.add_note("the shortcut may need a projection: residual(body, skip=dense(n_in, n_out))")
            raise error
        return out + short

    return _branch({"body": body, "skip": skip}, add, "residual")


def branch(merge: Callable[..., Any], /, **named: Layer | Callable[..., Any]) -> Layer:
    """Several layers on the same inputs, merged: ``merge(first(x), second(x), ...)`` in the order given.

    A side input goes to every part that declares it.

    >>> both = branch(lambda a, b: jnp.concatenate([a, b], -1), sine=jnp.sin, cosine=jnp.cos)
    >>> both.apply({}, {}, jnp.zeros(1))[0]
    Array([0., 1.], dtype=float32)
    """
    return _branch(named, merge, "branch")


def _branch(named: Mapping[str, Any], merge: Callable[..., Any], label: str) -> Layer:
    parts = _checked_parts(named)

    def body(run: Callable[..., Any], *inputs: Any) -> Any:
        return merge(*(run(name, *inputs) for name in parts))

    return _passing(parts, body, label)
