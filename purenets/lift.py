"""Wrappers that keep the type, Layer to Layer, so that they stack.

:func:`repeat` puts a layer n times in depth, as one ``lax.scan`` over stacked params, so that the time to
compile does not grow with depth. :func:`ensemble` puts it n times side by side, as one ``vmap`` over params,
keys and state. :func:`remat` recomputes the forward pass in the backward one, :func:`frozen` fixes a feature
extractor, :func:`cast` runs a layer in other dtypes.

A wrapper adds no level to the paths: the parts of ``repeat(block, 12)`` are the parts of ``block``, with one
more axis in front of every leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.errors import check_call, describe
from purenets.layer import Key, Layer, Params, State
from purenets.paths import path_of
from purenets.signature import keywords_of, signed

__all__ = ["Policy", "cast", "ensemble", "frozen", "remat", "repeat", "wrapper"]


def wrapper(
    inner: Layer,
    label: str,
    again: Callable[[Layer], Layer],
    apply: Callable[..., tuple[Any, State]],
    init: Callable[[Key], tuple[Params, State]] | None = None,
    memory: Callable[[int, int], State] | None = None,
) -> Layer:
    """A layer around ``inner`` with another ``apply``: what every wrapper here is made with.

    It shows the parts of ``inner``, declares its side inputs, and when they are edited is made anew.

    Args:
        inner: the layer inside.
        label: how messages call the wrapper.
        again: the wrapper as a function of the layer inside.
        apply: as that of a layer; usually it calls ``inner.apply(params, state, *inputs, **keywords)``.
        init: as that of a layer; that of ``inner`` by default.
        memory: likewise.
    """
    signed(apply, keywords_of(inner.apply))
    return Layer(
        init or inner.init,
        apply,
        label,
        inner.parts,
        lambda parts: again(inner.remake(parts)),
        memory or inner.memory,
        (inner, again),
    )


def _positive(n: int, what: str) -> None:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"{what} needs a whole number of at least 1, got {n!r}")


def _check_stacked(label: str, n: int, params: Params, state: State) -> None:
    check_call(label, params, state)
    for kind, tree in (("params", params), ("state", state)):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if jnp.shape(leaf)[:1] != (n,):
                given = f"{path_of(path)} {describe(leaf)}"
                raise ValueError(f"{label} needs {kind} stacked along a first axis of {n}, got {given}")


def _member_keys(key: Key, n: int) -> Key:
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(n))


def _stacked_init(inner: Layer, n: int) -> Callable[[Key], tuple[Params, State]]:
    return lambda key: jax.vmap(inner.init)(_member_keys(key, n))


def _stacked_memory(inner: Layer, n: int) -> Callable[[int, int], State]:
    def memory(batch: int, length: int) -> State:
        entries = inner.memory(batch, length)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *jnp.shape(leaf))), entries)

    return memory


def repeat(layer: Layer, n: int, *, remat: bool = False, unroll: int = 1) -> Layer:
    """The layer n times in depth, as one scan over params stacked along a first axis of n.

    Member i has the key ``fold_in(key, i)``. Side inputs are the same for all. ``remat`` recomputes each
    member in the backward pass, ``unroll`` is that of ``jax.lax.scan``.

    Raises:
        TypeError: when applied, there is not exactly one input.
        ValueError: n is less than 1; or, when applied, the output is not like the input in shape and dtype,
            or params or state are not stacked n high.

    >>> from purenets.layer import layer
    >>> double = layer(lambda key: {"factor": jnp.float32(2)}, lambda p, x: p["factor"] * x, label="double")
    >>> params, state = repeat(double, 10).init(jax.random.key(0))
    >>> params["factor"].shape, repeat(double, 10).apply(params, state, jnp.float32(1))[0].item()
    ((10,), 1024.0)
    """
    _positive(n, "repeat")
    label = f"repeat({layer.label}, {n}{', remat=True' if remat else ''})"

    def apply(
        params: Params, state: State, *inputs: Any, key: Key | None = None, **keywords: Any
    ) -> tuple[Any, State]:
        _check_stacked(label, n, params, state)
        if len(inputs) != 1:
            raise TypeError(
                f"{label} takes one input, which each member hands to the next, got {len(inputs)}"
            )

        def member(carry: Any, xs: tuple[Params, State, jax.Array]) -> tuple[Any, State]:
            own, memory, index = xs
            own_key = None if key is None else jax.random.fold_in(key, index)
            out, memory = layer.apply(own, memory, carry, key=own_key, **keywords)
            out = jax.tree.map(jnp.asarray, out)
            if describe(out) != describe(carry):
                raise ValueError(
                    f"{label} needs a layer whose output is like its input, "
                    f"got {describe(carry)} in and {describe(out)} out"
                )
            return out, memory

        body = jax.checkpoint(member, prevent_cse=False) if remat else member
        return jax.lax.scan(body, inputs[0], (params, state, jnp.arange(n)), length=n, unroll=unroll)

    return wrapper(
        layer,
        label,
        lambda inner: repeat(inner, n, remat=remat, unroll=unroll),
        apply,
        _stacked_init(layer, n),
        _stacked_memory(layer, n),
    )


def ensemble(layer: Layer, n: int) -> Layer:
    """The layer n times side by side on the same inputs; params, state and outputs gain a first axis of n.

    Member i has the key ``fold_in(key, i)``: its own initial weights and its own masks.

    Raises:
        ValueError: n is less than 1; or, when applied, params or state are not stacked n high.

    >>> from purenets.layer import layer
    >>> noise = layer(lambda key: {"w": jax.random.normal(key, (2,))}, lambda p, x: p["w"] * x, label="noise")
    >>> params, state = ensemble(noise, 3).init(jax.random.key(0))
    >>> ensemble(noise, 3).apply(params, state, jnp.ones(2))[0].shape
    (3, 2)
    """
    _positive(n, "ensemble")
    label = f"ensemble({layer.label}, {n})"

    def apply(
        params: Params, state: State, *inputs: Any, key: Key | None = None, **keywords: Any
    ) -> tuple[Any, State]:
        _check_stacked(label, n, params, state)

        def member(own: Params, memory: State, index: jax.Array) -> tuple[Any, State]:
            own_key = None if key is None else jax.random.fold_in(key, index)
            return layer.apply(own, memory, *inputs, key=own_key, **keywords)

        return jax.vmap(member)(params, state, jnp.arange(n))

    return wrapper(
        layer,
        label,
        lambda inner: ensemble(inner, n),
        apply,
        _stacked_init(layer, n),
        _stacked_memory(layer, n),
    )


def remat(layer: Layer, policy: Callable[..., bool] | None = None) -> Layer:
    """The same layer, its intermediate values recomputed in the backward pass instead of kept.

    ``policy`` is one of ``jax.checkpoint_policies``; by default nothing is kept. Masks are bit-identical.
    """

    def apply(
        params: Params, state: State, *inputs: Any, key: Key | None = None, **keywords: Any
    ) -> tuple[Any, State]:
        def run(params: Params, state: State, *inputs: Any) -> tuple[Any, State]:
            # The backward pass draws the same masks again, which is no reuse of a key by mistake.
            own_key = None if key is None else jax.random.clone(key)
            return layer.apply(params, state, *inputs, key=own_key, **keywords)

        return jax.checkpoint(run, policy=policy)(params, state, *inputs)

    return wrapper(layer, f"remat({layer.label})", lambda inner: remat(inner, policy), apply)


def frozen(layer: Layer) -> Layer:
    """A fixed feature extractor: no gradient to its params, and always in evaluation mode.

    Statistics and masks are fixed too. Gradients still flow through to its inputs, and to params that a body
    ties by ``m.name.params``, which is a use of them outside this layer.
    """

    def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
        keywords = {**keywords, "key": None, "train": False}
        return layer.apply(jax.lax.stop_gradient(params), state, *inputs, **keywords)

    return wrapper(layer, f"frozen({layer.label})", frozen, apply)


class Policy(NamedTuple):
    """Which dtype params are kept in, computation runs in and outputs come out in."""

    param: Any = jnp.float32
    compute: Any = jnp.bfloat16
    output: Any = jnp.float32


def _to(dtype: Any, tree: Any) -> Any:
    """The tree with its floating leaves in another dtype; integers, keys and the rest are left alone."""

    def one(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating else leaf

    return jax.tree.map(one, tree)


def cast(layer: Layer, policy: Policy = Policy()) -> Layer:
    """The layer computed in ``policy.compute``; the params themselves stay in ``policy.param``.

    Params and inputs are cast on the way in and outputs on the way out. State keeps its own dtypes: running
    statistics stay float32.
    """

    def init(key: Key) -> tuple[Params, State]:
        params, state = layer.init(key)
        return _to(policy.param, params), state

    def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
        params, inputs, keywords = _to(policy.compute, (params, inputs, keywords))
        output, state = layer.apply(params, state, *inputs, **keywords)
        return _to(policy.output, output), state

    label = f"cast({layer.label}, {jnp.dtype(policy.compute).name})"
    return wrapper(layer, label, lambda inner: cast(inner, policy), apply, init)
