"""Beam search: the likeliest continuations of a sequence, several at a time.

Of each prompt the ``beams`` likeliest continuations so far are kept. Each step tries every token after each
of them and keeps the likeliest again; a continuation that has ended keeps its place and its probability. With
as many beams as there are continuations the search is exact, with one it is the likeliest token at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.checks import at_least_float32
from purenets.generate import Side, begin, check_prompt, is_stop
from purenets.layer import Layer, Params, State

__all__ = ["Beams", "beam_search"]


class Beams(NamedTuple):
    """What :func:`beam_search` gives, the likeliest first."""

    tokens: jax.Array
    """``[batch, beams, steps]``, int32: what follows each prompt; after a stop token ``pad``."""
    lengths: jax.Array
    """``[batch, beams]``: how many of them count, a stop token included."""
    scores: jax.Array
    """``[batch, beams]``: the log probability of the continuation, in nats."""


def beam_search(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    *,
    steps: int,
    beams: int,
    lengths: Any = None,
    stop: Sequence[int] = (),
    pad: int = 0,
    side: Side | None = None,
) -> Beams:
    """Continue prompts ``[batch, time]`` by the ``beams`` likeliest sequences of ``steps`` tokens.

    The arguments are those of :func:`~purenets.generate.generate`. Where logits are NaN, scores are NaN and
    tokens -1. Where there are fewer continuations than beams, the scores of the rest are minus infinity.

    Raises:
        ValueError: as :func:`~purenets.generate.generate`, or there is no beam.
    """
    side = dict(side or {})
    if beams < 1:
        raise ValueError(f"beam_search needs at least one beam, got {beams}")
    prompt, lengths = check_prompt(model, params, state, prompt, steps, lengths, side)
    stops = tuple(int(token) for token in stop)
    return _search(model, steps, beams, stops, pad, params, state, prompt, lengths, side)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _search(
    model: Layer,
    steps: int,
    beams: int,
    stop: tuple[int, ...],
    pad: int,
    params: Params,
    state: State,
    prompt: jax.Array,
    lengths: jax.Array | None,
    side: dict[str, Any],
) -> Beams:
    batch = prompt.shape[0]
    token, state = begin(model, params, state, prompt, steps, lengths, side)
    axes = _batch_axes(model, state)
    state = jax.tree.map(lambda leaf, axis: leaf if axis < 0 else jnp.repeat(leaf, beams, axis), state, axes)
    scores = jnp.full((batch, beams), -jnp.inf).at[:, 0].set(0)
    start = (
        jnp.int32(0),
        jnp.repeat(token[:, None], beams, 1),
        state,
        Beams(jnp.full((batch, beams, steps), pad, jnp.int32), jnp.zeros((batch, beams), jnp.int32), scores),
        jnp.zeros((batch, beams), bool),
    )

    def going(carry: Any) -> jax.Array:
        return (carry[0] < steps) & ~carry[-1].all()

    def step(carry: Any) -> Any:
        number, token, state, found, done = carry
        logits, state = model.apply(params, state, token.reshape(-1, 1), stream=True)
        gains = jax.nn.log_softmax(at_least_float32(logits[:, 0])).reshape(batch, beams, -1)
        scores, parents, token = _best(found.scores, gains, done, pad)
        done = jnp.take_along_axis(done, parents, 1)
        rows = (jnp.arange(batch)[:, None] * beams + parents).ravel()
        state = jax.tree.map(lambda leaf, axis: leaf if axis < 0 else jnp.take(leaf, rows, axis), state, axes)
        tokens = jnp.take_along_axis(found.tokens, parents[..., None], 1).at[:, :, number].set(token)
        counts = jnp.take_along_axis(found.lengths, parents, 1) + ~done
        return number + 1, token, state, Beams(tokens, counts, scores), done | is_stop(token, stop)

    _, _, _, found, _ = jax.lax.while_loop(going, step, start)
    broken = jnp.isnan(found.scores)
    return found._replace(tokens=jnp.where(broken[..., None], -1, found.tokens))


def _best(
    scores: jax.Array, gains: jax.Array, done: jax.Array, pad: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best continuations of all beams ``[batch, beams]``: scores, the beams they go on from, tokens."""
    batch, beams, size = gains.shape
    # One that has ended goes on in one way, which costs nothing; which column that is does not matter.
    still = jnp.full(size, -jnp.inf).at[0].set(0)
    total = scores[..., None] + jnp.where(done[..., None], still, gains)
    scores, index = jax.lax.top_k(total.reshape(batch, -1), beams)
    parents = index // size
    ended = jnp.take_along_axis(done, parents, 1)
    return scores, parents, jnp.where(ended, pad, index % size).astype(jnp.int32)


def _batch_axes(model: Layer, state: State) -> Any:
    """For each leaf of the state the axis of its sequences, or -1: the one that grows with their number."""
    one, two = (jax.eval_shape(partial(model.memory, batch, 1)) for batch in (1, 2))

    def axis(a: Any, b: Any) -> int:
        return next((i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n), -1)

    def overlay(state: Any, axes: Any) -> Any:
        if not isinstance(state, dict):
            return jax.tree.map(lambda _: -1, state) if axes is None else axes
        return {name: overlay(leaf, (axes or {}).get(name)) for name, leaf in state.items()}

    return overlay(state, jax.tree.map(axis, one, two))
