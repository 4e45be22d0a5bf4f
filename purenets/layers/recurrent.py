"""Recurrent layers: a cell over a sequence ``[batch, time, features]``.

With ``stream=True`` the carry is read from the state and left there, so a sequence in any cut gives what it
gives whole, and truncated backpropagation through time is ``train=True, stream=True``.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from purenets.compose import compose, serial
from purenets.layer import Layer, Params, State, layer
from purenets.layers.cells import Cell
from purenets.layers.checks import check_lengths, check_sequence

__all__ = ["bidirectional", "last_step", "reverse_within", "rnn", "stacked"]


def rnn(cell: Cell, *, reverse: bool = False, unroll: int = 1) -> Layer:
    """A cell over a sequence: ``[batch, time, n_in]`` to ``[batch, time, n_out]``.

    The side input ``lengths [batch]`` says how many steps of each sequence count: beyond them the carry stays
    and the output is 0. Params are those of the cell.

    On CPU the product with the inputs stays inside the loop, where it is faster; elsewhere it is one product
    ahead of all steps.

    Args:
        cell: the step in time.
        reverse: from the last step to the first; with ``lengths`` from the last that counts.
        unroll: as of ``jax.lax.scan``.

    Raises:
        ValueError: when applied, the input is not ``[batch, time, n_in]``; lengths are of another shape, or
            known to be beyond the time; a stream was not opened, or is reversed.

    >>> from purenets.layers.cells import lstm_cell
    >>> model = rnn(lstm_cell(3, 8))
    >>> params, state = model.init(jax.random.key(0))
    >>> model.apply(params, state, jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 8)
    """
    label = f"rnn({cell.label}{', reverse' if reverse else ''})"

    def apply(
        params: Params, state: State, x: jax.Array, *, stream: bool, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, State]:
        check_sequence(label, x, cell.n_in)
        check_lengths(label, lengths, x)
        if stream and reverse:
            raise ValueError(f"{label} cannot stream: what comes last is needed first")
        if stream and "carry" not in state:
            raise ValueError(f"{label} has no stream: state = open_stream(model, state, batch=, length=)")
        if reverse:
            x = reverse_within(x, lengths)
        carry = state["carry"] if stream else _like(cell.carry(x.shape[0]), params, x)
        carry, y = _scan(cell, params, carry, x, lengths, unroll)
        if reverse:
            y = reverse_within(y, lengths)
        return y, {"carry": carry} if stream else state

    def memory(batch: int, length: int) -> State:  # noqa: ARG001
        return {"carry": cell.carry(batch)}

    return layer(cell.init, apply, memory=memory, label=label)


def _like(carry: Any, params: Params, x: jax.Array) -> Any:
    """The carry in the dtype that a step gives, or the complex one of the same precision."""
    dtype = jnp.result_type(x, *jax.tree.leaves(params))

    def cast(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.result_type(dtype, jnp.complex64) if jnp.iscomplexobj(leaf) else dtype)

    return jax.tree.map(cast, carry)


def _scan(
    cell: Cell, params: Params, carry: Any, x: jax.Array, lengths: jax.Array | None, unroll: int
) -> tuple[Any, jax.Array]:
    xs: Any = jnp.moveaxis(x, 1, 0)
    if cell.sequence and lengths is None and unroll == 1:
        carry, y = cell.sequence(params, carry, xs)
        return carry, jnp.moveaxis(y, 0, 1)
    ahead = jax.default_backend() != "cpu"
    if ahead:
        xs = cell.project(params, xs)

    def step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
        now, counts = given
        new, y = cell.step(params, carry, now if ahead else cell.project(params, now))
        if lengths is None:
            return new, y
        chosen = jax.tree.map(lambda a, b: jnp.where(_column(counts, a), a, b), new, carry)
        return chosen, jnp.where(_column(counts, y), y, 0)

    counts = None if lengths is None else jnp.arange(x.shape[1])[:, None] < lengths
    carry, y = jax.lax.scan(step, carry, (xs, counts), length=x.shape[1], unroll=unroll)
    return carry, jnp.moveaxis(y, 0, 1)


def _column(flags: jax.Array, leaf: jax.Array) -> jax.Array:
    return flags.reshape(-1, *[1] * (leaf.ndim - 1))


def reverse_within(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Sequences ``[batch, time, ...]`` with the steps that count in the opposite order, the rest in place."""
    if lengths is None:
        return jnp.flip(x, 1)
    time = jnp.arange(x.shape[1])
    ends = lengths[:, None]
    index = jnp.where(time < ends, ends - 1 - time, time)
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), 1)


def bidirectional(forward: Cell, backward: Cell) -> Layer:
    """Two cells, one from each end, their outputs side by side: ``[batch, time, n_out + n_out]``.

    Schuster & Paliwal 1997. ``lengths`` goes to both.
    """

    @compose(forward=rnn(forward), backward=rnn(backward, reverse=True))
    def both(m: Any, x: jax.Array, *, lengths: jax.Array | None = None) -> jax.Array:
        return jnp.concatenate([m.forward(x, lengths=lengths), m.backward(x, lengths=lengths)], -1)

    return both


def stacked(*cells: Cell) -> Layer:
    """Cells over each other, each over the outputs of the one below: ``[batch, time, n_in]`` to the last ``n_out``.

    ``lengths`` goes to all of them. The parts are ``rnn_1``, ``rnn_2``, ...

    Raises:
        ValueError: there are none, or one does not take what the one below gives.
    """
    if not cells:
        raise ValueError("stacked needs cells: stacked(lstm_cell(8, 16), lstm_cell(16, 16))")
    for below, above in itertools.pairwise(cells):
        if below.n_out != above.n_in:
            raise ValueError(
                f"stacked: {above} takes {above.n_in} features, {below} below it gives {below.n_out}"
            )
    return serial(**{f"rnn_{i}": rnn(cell) for i, cell in enumerate(cells, 1)})


def last_step() -> Layer:
    """The last step of each sequence that counts: ``[batch, time, ...]`` to ``[batch, ...]``.

    With the side input ``lengths [batch]`` it is step ``lengths - 1``, otherwise the last one.
    """

    def apply(_params: Params, x: jax.Array, *, lengths: jax.Array | None = None) -> jax.Array:
        check_lengths("last_step", lengths, x)
        if lengths is None:
            return x[:, -1]
        index = (lengths - 1).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.take_along_axis(x, index, 1, mode="fill")[:, 0]

    return layer(None, apply, label="last_step")
