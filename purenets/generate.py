"""Generation: a model that continues a sequence of tokens, one after another, as one compiled program.

A model of tokens maps ids ``[batch, time]`` to logits ``[batch, time, size]`` of the token after each, and can
stream, be it recurrent or a Transformer. All of the *prompt* but its last token goes through at once; from
then on each step takes one token and gives the next, and the memory of the stream is all that is kept. So a
step costs the same however much came before it, and the tokens are those that running the model over all of
the sequence would give at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.checks import concrete
from purenets.layer import Key, Layer, Params, State, describe, open_stream
from purenets.sampling import choose
from purenets.signature import side_inputs

__all__ = ["Generated", "begin", "check_prompt", "generate", "is_stop"]

Side = Mapping[str, Any]


class Generated(NamedTuple):
    """What :func:`generate` gives."""

    tokens: jax.Array
    """``[batch, steps]``, int32: what follows each prompt; after a stop token ``pad``."""
    lengths: jax.Array
    """``[batch]``: how many of them count, a stop token included."""


def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    *,
    steps: int,
    lengths: Any = None,
    key: Key | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
    stop: Sequence[int] = (),
    pad: int = 0,
    side: Side | None = None,
) -> Generated:
    """Continue prompts ``[batch, time]`` by ``steps`` tokens: the likeliest, or with a ``key`` drawn ones.

    It is compiled once for each model, shape, ``steps``, ``top_k``, ``stop`` and ``pad``. Step i draws with
    the key ``fold_in(key, i)``. Where logits are NaN, the token is -1 and stays so: under ``jit`` this also
    tells of a prompt with ids that do not exist.

    Args:
        model: ids ``[batch, time]`` to logits ``[batch, time, size]``, with memory over time.
        params: its params.
        state: its state; the stream is opened here.
        prompt: ids ``[batch, time]``, at least one for each sequence.
        steps: how many tokens to add.
        lengths: ``[batch]``, how many ids of each prompt count, the first ones; all by default. The model
            must take ``lengths`` as a side input.
        key: to draw with; without one each token is the likeliest.
        temperature: what logits are divided by; may be traced.
        top_k: draw among so many of the likeliest only.
        top_p: draw among the fewest that have this probability together; may be traced.
        stop: ids that end a sequence. When all sequences have ended, the program does.
        pad: what stands after the end.
        side: side inputs that go in with the prompt, such as ``memory``, which a stream remembers.

    Raises:
        ValueError: the prompt is not integer ``[batch, time]``, or an id or length is known not to exist;
            prompt and ``steps`` are more than the model's context; ``temperature`` is known not to be
            positive, or ``top_p`` not to be a probability; the model has no memory, or does not take what is
            given.
    """
    side = dict(side or {})
    prompt, lengths = check_prompt(model, params, state, prompt, steps, lengths, side)
    _check_draw(key, temperature, top_k, top_p)
    draw = {} if key is None else {"key": key, "temperature": temperature, "top_p": top_p}
    stops = tuple(int(token) for token in stop)
    return _generate(model, steps, top_k, stops, pad, params, state, prompt, lengths, side, draw)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _generate(
    model: Layer,
    steps: int,
    top_k: int | None,
    stop: tuple[int, ...],
    pad: int,
    params: Params,
    state: State,
    prompt: jax.Array,
    lengths: jax.Array | None,
    side: dict[str, Any],
    draw: dict[str, Any],
) -> Generated:
    batch = prompt.shape[0]
    token, state = begin(model, params, state, prompt, steps, lengths, side)
    start = (
        jnp.int32(0),
        token,
        state,
        jnp.full((batch, steps), pad, jnp.int32),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
    )

    def going(carry: Any) -> jax.Array:
        return (carry[0] < steps) & ~carry[-1].all()

    def step(carry: Any) -> Any:
        number, token, state, tokens, counts, done = carry
        logits, state = model.apply(params, state, token[:, None], stream=True)
        now = dict(draw)
        if draw:
            now["key"] = jax.random.fold_in(draw["key"], number)
        token = jnp.where(done, pad, choose(logits[:, 0], top_k=top_k, **now))
        tokens = tokens.at[:, number].set(token)
        counts = counts + ~done
        return number + 1, token, state, tokens, counts, done | is_stop(token, stop)

    _, _, _, tokens, counts, _ = jax.lax.while_loop(going, step, start)
    return Generated(tokens, counts)


def is_stop(token: jax.Array, stop: tuple[int, ...]) -> jax.Array:
    """Which tokens end their sequence."""
    return jnp.isin(token, jnp.array(stop, jnp.int32)) if stop else jnp.zeros(token.shape, bool)


def begin(
    model: Layer,
    params: Params,
    state: State,
    prompt: jax.Array,
    steps: int,
    lengths: jax.Array | None,
    side: Side,
) -> tuple[jax.Array, State]:
    """The last token of each prompt, and the state of a stream that had all before it.

    No logits are used, so that the compiler leaves the head of the model out, which of a long prompt is a
    good part of the work.
    """
    batch, time = prompt.shape
    state = open_stream(model, state, batch=batch, length=_slots(time, steps, side))
    if lengths is None and time > 1:
        _, state = model.apply(params, state, prompt[:, :-1], stream=True, **side)
        return prompt[:, -1], state
    if lengths is None and not side:
        return prompt[:, 0], state
    lengths = jnp.ones(batch, jnp.int32) if lengths is None else lengths
    ids = jnp.where(jnp.arange(time) < lengths[:, None], prompt, 0)
    _, state = model.apply(params, state, ids, lengths=lengths - 1, stream=True, **side)
    return jnp.take_along_axis(ids, lengths[:, None] - 1, 1)[:, 0], state


def _slots(time: int, steps: int, side: Side) -> int:
    """How long the stream is: the last token is never put in again; a memory needs slots too."""
    memory = side.get("memory")
    return max(time + steps - 1, 0 if memory is None else memory.shape[1])


@partial(jax.jit, static_argnums=0)
def _first_logits(model: Layer, params: Params, state: State, prompt: jax.Array, side: dict[str, Any]) -> Any:
    return model.apply(params, state, prompt[:, :1], **side)[0]


def check_prompt(
    model: Layer, params: Params, state: State, prompt: Any, steps: int, lengths: Any, side: dict[str, Any]
) -> tuple[jax.Array, jax.Array | None]:
    """Prompt and lengths as int32, after all that can be known of them was asked."""
    if jnp.ndim(prompt) != 2 or not jnp.issubdtype(jnp.result_type(prompt), jnp.integer):
        error = ValueError(f"generate needs prompts as integer ids [batch, time], got {describe(prompt)}")
        if jnp.ndim(prompt) == 1:
            error.add_note("the prompt may be a single one without its batch axis: prompt[None]")
        raise error
    batch, time = jnp.shape(prompt)
    if time < 1 or steps < 1:
        raise ValueError(f"generate needs a prompt of at least one id and one step, got {time} and {steps}")
    if not jax.eval_shape(partial(model.memory, batch, _slots(time, steps, side))):
        raise ValueError(f"{model.label} has no memory over time and cannot go on from a prompt")
    if lengths is not None:
        if jnp.shape(lengths) != (batch,) or not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
            raise ValueError(
                f"generate needs integer lengths [{batch}], got {describe(jnp.asarray(lengths))}"
            )
        if "lengths" not in side_inputs(model.apply):
            raise ValueError(f"{model.label} does not take lengths: give prompts of one length together")
    _check_values(model, params, state, prompt, lengths, side)
    lengths = None if lengths is None else jnp.asarray(lengths, jnp.int32)
    return jnp.asarray(prompt, jnp.int32), lengths


def _check_values(
    model: Layer, params: Params, state: State, prompt: Any, lengths: Any, side: dict[str, Any]
) -> None:
    """Refuse ids and lengths that are known not to exist."""
    known = concrete(prompt)
    counts = None if lengths is None else concrete(lengths)
    time = jnp.shape(prompt)[1]
    if counts is not None and not 1 <= counts.min() <= counts.max() <= time:
        raise ValueError(
            f"generate has prompts of 1 to {time} ids, got lengths from {counts.min()} to {counts.max()}"
        )
    if known is None or (lengths is not None and counts is None):
        return
    ids = known if counts is None else known[np.arange(time) < counts[:, None]]
    size = _first_logits.eval_shape(model, params, state, jnp.asarray(prompt), side).shape[-1]
    if ids.min() < 0 or ids.max() >= size:
        wrong = ids[(ids < 0) | (ids >= size)][0]
        raise ValueError(f"{model.label} has the ids 0 to {size - 1}, got {wrong} in the prompt")


def _check_draw(key: Key | None, temperature: Any, top_k: int | None, top_p: Any) -> None:
    heat, share = concrete(temperature), None if top_p is None else concrete(top_p)
    if key is None and (top_k is not None or top_p is not None or (heat is None or heat != 1)):
        raise ValueError("generate needs a key to draw with: generate(..., key=jax.random.key(0))")
    if heat is not None and not heat > 0:
        raise ValueError(f"generate needs a temperature above 0, got {heat}: leave out the key instead")
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate needs a top_k of at least 1, got {top_k}")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"generate needs a top_p above 0 and at most 1, got {share}")
