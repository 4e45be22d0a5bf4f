"""Keys and values that attention keeps in a stream: one *slot* for each step that it was opened for.

They are kept as ``[batch, kv_heads, slots, head_dim]``, so that the slots of a head are one matrix in memory:
a step of one token took 0.6 of the time that it takes with the slots in front of the heads.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.layer import Layer, Params, State, describe, layer

__all__ = ["kv_cache", "memory_cache"]

Pair: TypeAlias = tuple[jax.Array, jax.Array]
"""Keys and values, each ``[batch, source, kv_heads, head_dim]``."""


def _slots(kv_heads: int, head_dim: int, batch: int, length: int) -> State:
    shape = (batch, kv_heads, length, head_dim)
    return {"key": jnp.zeros(shape, jnp.float32), "value": jnp.zeros(shape, jnp.float32)}


def _read(state: State, dtype: Any) -> Pair:
    key, value = (jnp.swapaxes(state[name].astype(dtype), 1, 2) for name in ("key", "value"))
    return key, value


def kv_cache(kv_heads: int, head_dim: int) -> Layer:
    """Keys and values: in a stream the new ones go into the slots of their steps, and all slots come out.

    Called with ``key`` and ``value [batch, time, kv_heads, head_dim]`` and their ``steps [batch, time]``;
    with the side input ``lengths [batch]`` only the first ones count. What has no slot is dropped. The state
    may be cast to another dtype after it was opened: ``bfloat16`` halves it.
    """

    def apply(
        _params: Params,
        state: State,
        key: jax.Array,
        value: jax.Array,
        steps: jax.Array,
        *,
        stream: bool,
        lengths: jax.Array | None = None,
    ) -> tuple[Pair, State]:
        if not stream:
            return (key, value), state
        if lengths is not None:
            counts = jnp.arange(key.shape[1]) < lengths[:, None]
            steps = jnp.where(counts, steps, state["key"].shape[2])
        rows = jnp.arange(key.shape[0])[:, None]
        state = {
            name: state[name].at[rows, :, steps].set(new.astype(state[name].dtype), mode="drop")
            for name, new in (("key", key), ("value", value))
        }
        return _read(state, key.dtype), state

    def memory(batch: int, length: int) -> State:
        return _slots(kv_heads, head_dim, batch, length)

    return layer(None, apply, memory=memory, label=f"kv_cache({kv_heads}, {head_dim})")


def memory_cache(kv_heads: int, head_dim: int) -> Layer:
    """Keys and values of another sequence and how many count, in a stream kept from the first call on.

    Called with the dtype to read in, and the pair and its lengths where they are given. The length of a
    memory that was never given is -1.

    Raises:
        ValueError: a stream was not opened, or has other slots than the pair needs.
    """
    label = f"memory_cache({kv_heads}, {head_dim})"

    def apply(
        _params: Params,
        state: State,
        dtype: Any,
        pair: Pair | None,
        lengths: jax.Array | None,
        *,
        stream: bool,
    ) -> tuple[Any, State]:
        if not stream:
            return (pair, lengths), state
        if "length" not in state:
            raise ValueError(f"{label} has no stream: state = open_stream(model, state, batch=, length=)")
        if pair is not None:
            state = _kept(label, state, pair, lengths)
        return (_read(state, dtype), state["length"]), state

    def memory(batch: int, length: int) -> State:
        return {
            **_slots(kv_heads, head_dim, batch, length),
            "length": jnp.full((batch,), -1, jnp.int32),
        }

    return layer(None, apply, memory=memory, label=label)


def _kept(label: str, state: State, pair: Pair, lengths: jax.Array | None) -> State:
    batch, source = pair[0].shape[:2]
    sequences, _, slots, _ = state["key"].shape
    if batch != sequences or source > slots:
        raise ValueError(
            f"{label} has a stream of {sequences} sequences with {slots} slots, got keys {describe(pair[0])}"
        )
    room = ((0, 0), (0, 0), (0, slots - source), (0, 0))
    key, value = (jnp.pad(jnp.swapaxes(new, 1, 2).astype(state["key"].dtype), room) for new in pair)
    count = jnp.full((batch,), source) if lengths is None else lengths
    return {"key": key, "value": value, "length": count.astype(jnp.int32)}
