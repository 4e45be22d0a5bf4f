"""Where a token stands in its sequence, said in one of four ways.

============================  ==============================================================
:func:`sinusoidal_positions`  sines and cosines added to the vectors (Vaswani et al. 2017, 3.5)
:func:`learned_positions`     a learned vector for each position, added
:func:`rotary`                queries and keys turned by an angle that grows with position
:func:`alibi`                 a penalty on the scores that grows with distance
============================  ==============================================================

The first two are layers ``[batch, time, dim]`` to the same. The last two go into an attention layer,
``attention(..., relative=rotary())``, and depend on differences of positions alone.

In a stream positions go on where the last stretch ended; :func:`clock` is the layer that counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.layer import Key, Layer, Params, State, describe, fold_name, layer
from purenets.layers.checks import check_lengths, check_sequence

__all__ = [
    "Relative",
    "alibi",
    "alibi_slopes",
    "clock",
    "learned_positions",
    "rotary",
    "sinusoid",
    "sinusoidal_positions",
]


def _count(
    label: str, state: State, x: jax.Array, stream: bool, lengths: jax.Array | None
) -> tuple[jax.Array, State]:
    """The position of each step, ``[1, time]`` or in a stream ``[batch, time]``, and the state after them."""
    batch, time = x.shape[:2]
    steps = jnp.arange(time, dtype=jnp.int32)[None]
    if not stream:
        return steps, state
    if "step" not in state:
        raise ValueError(f"{label} has no stream: state = open_stream(model, state, batch=, length=)")
    if state["step"].shape != (batch,):
        raise ValueError(f"{label} has a stream of {state['step'].shape[0]} sequences, got {describe(x)}")
    passed = time if lengths is None else jnp.asarray(lengths, jnp.int32)
    return state["step"][:, None] + steps, {"step": state["step"] + passed}


def _zero_steps(batch: int, length: int) -> State:  # noqa: ARG001
    return {"step": jnp.zeros((batch,), jnp.int32)}


def clock() -> Layer:
    """The position of each step of ``[batch, time, ...]``: ``[1, time]``, or in a stream ``[batch, time]``.

    In a stream each sequence goes on where it was; with the side input ``lengths [batch]`` only the first
    steps count.

    Raises:
        ValueError: a stream was not opened, or is of another number of sequences.
    """

    def apply(
        _params: Params, state: State, x: jax.Array, *, stream: bool, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, State]:
        check_lengths("clock", lengths, x)
        return _count("clock", state, x, stream, lengths)

    return layer(None, apply, memory=_zero_steps, label="clock")


def sinusoid(positions: jax.Array, dim: int, base: float = 10000.0) -> jax.Array:
    """Positions ``[...]`` as vectors ``[..., dim]``: element 2i is sin(p / base^(2i / dim)), 2i + 1 its cosine.

    Vaswani et al. 2017, section 3.5.

    >>> sinusoid(jnp.array(0), 4).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    angles = positions[..., None] * _frequencies(dim, base)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*positions.shape, dim)


def _frequencies(dim: int, base: float) -> jax.Array:
    return jnp.asarray(base ** (-np.arange(0, dim, 2) / dim), jnp.float32)


def sinusoidal_positions(dim: int, *, base: float = 10000.0) -> Layer:
    """Adds :func:`sinusoid` of the positions: ``[batch, time, dim]`` to the same.

    The side input ``positions [batch, time]`` gives other ones than 0, 1, 2, ...

    Raises:
        ValueError: the width is odd; the input is not ``[batch, time, dim]``; a stream was not opened.
    """
    label = f"sinusoidal_positions({dim})"
    if dim % 2:
        raise ValueError(f"{label} needs an even width: sines and cosines come in pairs")

    def encode(_params: Params, positions: jax.Array) -> jax.Array:
        return sinusoid(positions, dim, base)

    return _added(label, dim, None, encode, None)


def learned_positions(
    context: int, dim: int, *, embedding_init: Any = jax.nn.initializers.normal(0.02)
) -> Layer:
    """Adds a learned vector for each position: ``[batch, time, dim]`` to the same.

    The parameter is ``embedding [context, dim]``, at first normal of deviation 0.02 (Radford et al. 2019).
    The side input ``positions [batch, time]`` gives other ones than 0, 1, 2, ...; one out of range gives NaN.

    Raises:
        ValueError: the input is not ``[batch, time, dim]`` or longer than ``context``; a stream was not
            opened, or is opened for more than ``context``.
    """
    label = f"learned_positions({context}, {dim})"

    def init(key: Key) -> Params:
        return {"embedding": embedding_init(fold_name(key, "embedding"), (context, dim), jnp.float32)}

    def encode(params: Params, positions: jax.Array) -> jax.Array:
        table = params["embedding"]
        return table.at[positions].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)

    return _added(label, dim, init, encode, context)


def _added(
    label: str,
    dim: int,
    init: Callable[[Key], Params] | None,
    encode: Callable[[Params, jax.Array], jax.Array],
    context: int | None,
) -> Layer:
    def check_context(length: int) -> None:
        if context is not None and length > context:
            raise ValueError(f"{label} has {context} positions, got a sequence of {length}")

    def memory(batch: int, length: int) -> State:
        check_context(length)
        return _zero_steps(batch, length)

    def apply(
        params: Params,
        state: State,
        x: jax.Array,
        *,
        stream: bool,
        lengths: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, State]:
        check_sequence(label, x, dim)
        check_lengths(label, lengths, x)
        counted, state = _count(label, state, x, stream, lengths)
        if positions is None:
            check_context(x.shape[1])
            positions = counted
        elif jnp.shape(positions) not in (x.shape[:2], (1, x.shape[1])):
            raise ValueError(f"{label} needs positions {list(x.shape[:2])}, got {describe(positions)}")
        return x + encode(params, positions).astype(x.dtype), state

    return layer(init, apply, memory=memory, label=label)


class Relative(NamedTuple):
    """What an attention layer does with positions: turn queries and keys, or add to the scores."""

    rotate: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """``rotate(x [batch, time, heads, head_dim], positions [batch, time])``, of queries and of keys."""
    bias: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """``bias(queries [batch, time], keys [batch, source]) -> [batch, heads, time, source]``, of positions."""


def rotary(base: float = 10000.0) -> Relative:
    """Rotary positions (Su et al. 2021, equation 34): pair i is turned by the angle p / base^(2i / head_dim).

    A pair is element i of the first half with element i of the second, as in GPT-NeoX and in the Llama
    weights of Hugging Face; the paper pairs neighbours, which is the same after permuting columns of the
    query and key kernels. Scores then depend on the difference of positions alone.
    """

    def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
        dim = x.shape[-1]
        if dim % 2:
            raise ValueError(f"rotary needs an even head_dim, got {describe(x)}")
        # Angles in float32 at least: in bfloat16 position 257 would be 256.
        angles = (positions[..., None] * _frequencies(dim, base))[..., None, :]
        sin, cos = jnp.sin(angles), jnp.cos(angles)
        first, second = jnp.split(x, 2, -1)
        turned = [first * cos - second * sin, second * cos + first * sin]
        return jnp.concatenate(turned, -1).astype(x.dtype)

    return Relative(rotate=rotate)


def alibi_slopes(heads: int) -> np.ndarray:
    """The slope of each head: 2^(-8 i / heads) for i = 1 ... heads (Press et al. 2022, section 3).

    Where heads is no power of two: those of the power below, then every second one of the power above, as in
    the authors' code.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    below = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * i / below) for i in range(1, below + 1)]
    between = [2.0 ** (-4 * i / below) for i in range(1, 2 * below + 1, 2)]
    return np.array((slopes + between)[:heads])


def alibi(heads: int) -> Relative:
    """Attention with linear biases (Press et al. 2022): each score less its head's slope times the distance."""
    slopes = alibi_slopes(heads)

    def bias(queries: jax.Array, keys: jax.Array) -> jax.Array:
        distance = jnp.abs(queries[:, None, :, None] - keys[:, None, None, :])
        return -jnp.asarray(slopes, jnp.float32)[:, None, None] * distance

    return Relative(bias=bias)
