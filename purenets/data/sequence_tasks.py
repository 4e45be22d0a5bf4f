"""Tasks on sequences that a program can set and check, each example drawn by a key.

=========================  ===========================================================================
:func:`copy_task`          remember symbols over a stretch of blanks (Hochreiter & Schmidhuber 1997)
:func:`adding_problem`     the sum of two marked numbers of a long sequence (the same)
:func:`reversal`           a sequence backwards
:func:`sorting`            a sequence in order
:func:`additions`          numbers to add, as text
=========================  ===========================================================================
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from purenets.layer import Key

__all__ = ["adding_problem", "additions", "copy_task", "reversal", "sorting"]


def copy_task(
    key: Key, n: int, *, symbols: int = 8, length: int = 10, delay: int = 20
) -> tuple[Array, Array]:
    """Inputs and targets ``[n, 2 length + delay]``: symbols, blanks, a sign to answer, and blanks.

    Ids 1 to ``symbols`` are symbols, 0 is blank and ``symbols + 1`` the sign, the last of the ``delay`` steps.
    The targets are blank until after the sign, then the symbols again.

    Raises:
        ValueError: ``delay`` has no place for the sign.
    """
    if delay < 1:
        raise ValueError(f"copy_task needs a delay of at least 1, for the sign to answer, got {delay}")
    drawn = jax.random.randint(key, (n, length), 1, symbols + 1)
    blanks = jnp.zeros((n, length + delay), drawn.dtype)
    inputs = jnp.concatenate([drawn, blanks.at[:, delay - 1].set(symbols + 1)], 1)
    return inputs, jnp.concatenate([blanks, drawn], 1)


def adding_problem(key: Key, n: int, length: int) -> tuple[Array, Array]:
    """Sequences ``[n, length, 2]`` of numbers in [0, 1] and marks, and the sums ``[n]`` of the two that are marked.

    One mark is in the first half, one in the second. Always answering 1 has a mean squared error of 1/6.

    Raises:
        ValueError: there is no place for two marks.
    """
    if length < 2:
        raise ValueError(f"adding_problem needs sequences of at least 2 numbers, got length={length}")
    values, early, late = jax.random.split(key, 3)
    numbers = jax.random.uniform(values, (n, length))
    places = jnp.stack(
        [
            jax.random.randint(early, (n,), 0, length // 2),
            jax.random.randint(late, (n,), length // 2, length),
        ],
        1,
    )
    marks = jax.nn.one_hot(places, length).sum(1)
    return jnp.stack([numbers, marks], -1), jnp.sum(numbers * marks, 1)


def reversal(key: Key, n: int, length: int, symbols: int = 10) -> tuple[Array, Array]:
    """Ids ``[n, length]``, and the same backwards."""
    drawn = jax.random.randint(key, (n, length), 0, symbols)
    return drawn, drawn[:, ::-1]


def sorting(key: Key, n: int, length: int, symbols: int = 10) -> tuple[Array, Array]:
    """Ids ``[n, length]``, and the same in ascending order."""
    drawn = jax.random.randint(key, (n, length), 0, symbols)
    return drawn, jnp.sort(drawn, 1)


def additions(key: Key, n: int, digits: int = 2) -> list[tuple[str, str]]:
    """Pairs of a question ``"47+08"`` and its answer ``"055"``, of fixed widths; on the host.

    >>> all(int(a) == sum(map(int, q.split("+"))) for q, a in additions(jax.random.key(0), 5, 3))
    True
    """
    drawn = jax.random.randint(key, (n, 2), 0, 10**digits)
    return [(f"{a:0{digits}}+{b:0{digits}}", f"{a + b:0{digits + 1}}") for a, b in drawn.tolist()]
