"""Why a ported layer gives something else than the original: known mistakes, tried on the layer itself.

A *candidate* is the layer with one thing changed: a kernel transposed, a norm with another epsilon, the input with its
axes in another order. The one whose output is the reference's is what is wrong. Where the layer has others inside, each
of them is changed by itself, and all of a kind together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.interop.observed import Observation
from purenets.interop.port_params import other_params
from purenets.interop.torch_places import below, core, numbers_of
from purenets.layer import Layer, Params, State, function, layer
from purenets.layers.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from purenets.lift import wrapper
from purenets.paths import flatten, unflatten
from purenets.surgery import edit, layers_by_path

__all__ = ["Candidate", "candidates"]

_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12)
_NORMS: dict[str, Callable[..., Layer]] = {
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
}
_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "gelu, exact (approximate=False)": partial(jax.nn.gelu, approximate=False),
    "gelu, approximate (approximate=True)": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "softplus": jax.nn.softplus,
}
_ACTIVATION_KINDS = {"gelu", "relu", "silu", "swish", "tanh", "sigmoid", "elu", "leaky_relu", "softplus"}


class Candidate(NamedTuple):
    """One thing changed."""

    says: str
    compute: Callable[[], Any]
    """The output of the layer so changed."""


def candidates(seen: Observation, flattened: Sequence[tuple[int, ...]] = ()) -> Iterator[Candidate]:
    """All that is worth trying on a layer.

    Args:
        seen: the layer and what it took in.
        flattened: shapes of an example ahead of a flatten before this layer, ``(*space, channels)``.
    """
    compute = jax.jit(lambda params: _run(seen, seen.layer, params))
    flat = flatten(seen.params)
    for says, changed in _param_changes(seen.layer, flat, flattened):
        yield Candidate(says, partial(compute, unflatten({**flat, **changed})))
    for says, kinds, fn in _layer_changes():
        edited = _changed(seen.layer, kinds, fn)
        if edited is not None:
            yield Candidate(says, partial(_run, seen, edited, seen.params))
    if core(seen.layer).label.startswith("conv("):
        for says, other in _other_paddings(seen):
            yield Candidate(says, partial(_run, seen, other, seen.params))
    yield from _other_inputs(seen)


def _run(seen: Observation, layer: Layer, params: Params) -> Any:
    return layer.apply(params, seen.state, *seen.inputs, **seen.side)[0]


def _param_changes(
    layer: Layer, flat: dict[str, Any], flattened: Sequence[tuple[int, ...]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What other params it could have: of one layer inside, and of all that have the same mistake."""
    together: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path, inner in {"": layer, **layers_by_path(layer)}.items():
        head = below(path, "x")[:-1]
        own = {name.removeprefix(head): leaf for name, leaf in flat.items() if name.startswith(head)}
        for says, changed in other_params(core(inner), own, flattened) if own else ():
            here = {head + name: leaf for name, leaf in changed.items()}
            together.setdefault(says, []).append((path, here))
    for says, found in together.items():
        for path, changed in found:
            yield f"{path}: {says}" if path else says, changed
        if len(found) > 1:
            every: dict[str, Any] = {}
            for _, changed in found:
                every |= changed
            yield f"{', '.join(path for path, _ in found)}: {says}", every


def _layer_changes() -> Iterator[tuple[str, set[str], Callable[[Layer], Layer]]]:
    """What is said, the kinds of layers that are changed, and how."""
    for eps in _EPSILONS:
        yield f"its epsilon is {eps:g} in the reference", set(_NORMS), partial(_with_eps, eps=eps)
    yield "the reference ran in training mode: it used the statistics of the batch", {"batch_norm"}, _training
    for name, fn in _ACTIVATIONS.items():
        yield f"its activation is {name} in the reference", _ACTIVATION_KINDS, partial(_replaced, fn)
    yield "it runs in the other direction of time in the reference", {"rnn"}, _backwards


def _changed(layer: Layer, kinds: set[str], fn: Callable[[Layer], Layer]) -> Layer | None:
    """The layer with ``fn`` of all inside that are of these kinds, itself among them; ``None`` if there are none."""

    def on(one: Layer) -> Layer:
        if one.wrapped is None:
            return fn(one)
        inner, again = one.wrapped
        return again(on(inner))

    every = {"": layer, **layers_by_path(layer)}
    chosen = [path for path, one in every.items() if core(one).label.split("(")[0] in kinds]
    if not chosen:
        return None
    inside = [path for path in chosen if path]
    edited = edit(layer, inside, on) if inside else layer
    return on(edited) if "" in chosen else edited


def _replaced(fn: Callable[..., Any], old: Layer) -> Layer:  # noqa: ARG001
    return function(fn)


def _with_eps(old: Layer, eps: float) -> Layer:
    params, _ = jax.eval_shape(old.init, jax.random.key(0))
    has = {name: name in params for name in ("scale", "bias")}
    kind = old.label.split("(")[0]
    if kind == "rms_norm":
        del has["bias"]
    return _NORMS[kind](*numbers_of(old.label), eps=eps, **has)


def _training(old: Layer) -> Layer:
    def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
        return old.apply(params, state, *inputs, **{**keywords, "train": True})[0], state

    return wrapper(old, old.label, _training, apply)


def _backwards(old: Layer) -> Layer:
    def apply(params: Params, state: State, x: Any, **keywords: Any) -> tuple[Any, State]:
        output, state = old.apply(params, state, jnp.flip(x, 1), **keywords)
        return jnp.flip(output, 1), state

    return wrapper(old, old.label, _backwards, apply)


def _other_paddings(seen: Observation) -> Iterator[tuple[str, Layer]]:
    """The convolution with other strides and paddings; what does not give the reference's shape is soon refused."""
    kernel, x = seen.params["kernel"], seen.inputs[0]
    rank = kernel.ndim - 2
    groups = x.shape[-1] // kernel.shape[-2]
    same = [(size // 2, size // 2) for size in kernel.shape[:rank]]
    pads: dict[str, Any] = {"'SAME'": "SAME", "'VALID'": "VALID", f"{same}, as torch's {same[0][0]}": same}
    space = "DHW"[-rank:]
    axes = (f"N{space}C", f"{space}IO", f"N{space}C")
    for stride in (1, 2, 3):
        for name, padding in pads.items():

            def apply(params: Params, x: Any, stride: int = stride, padding: Any = padding) -> Any:
                y = jax.lax.conv_general_dilated(
                    x,
                    params["kernel"],
                    (stride,) * rank,
                    padding,
                    dimension_numbers=axes,
                    feature_group_count=groups,
                )
                return y + params.get("bias", 0)

            yield f"its padding is {name} and its stride {stride} in the reference", layer(None, apply)


def _other_inputs(seen: Observation) -> Iterator[Candidate]:
    if len(seen.inputs) != 1 or jnp.ndim(seen.inputs[0]) != 4:
        return
    x = seen.inputs[0]
    batch, height, width, channels = x.shape

    def with_input(x: Any) -> Any:
        return seen.layer.apply(seen.params, seen.state, x, **seen.side)[0]

    says = "the reference's input was reshaped to channels first, x.reshape(batch, channels, ...), and not transposed"
    yield Candidate(says, lambda: with_input(jnp.moveaxis(x.reshape(batch, channels, height, width), 1, -1)))
    yield Candidate(
        "the reference's input has height and width exchanged", lambda: with_input(jnp.swapaxes(x, 1, 2))
    )
