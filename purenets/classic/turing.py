"""Turing's machine: a tape of symbols, a head on it, and a table of rules (Turing 1936).

A *rule* for a state and the symbol under the head says what to write, where to move and which state comes next.
Symbols are integers from 0, the blank, on; states likewise, and the machine halts in the state after the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Halted", "busy_beaver_3", "compile_rules", "run_turing_machine"]


class Halted(NamedTuple):
    """How a run ended: the tape ``[cells]``, the place of the head, the steps taken, and whether it halted."""

    tape: jax.Array
    head: jax.Array
    steps: jax.Array
    halted: jax.Array


def compile_rules(rules: Mapping[tuple[str, int], tuple[int, int, str]], halt: str = "halt") -> jax.Array:
    """Rules ``(state, symbol): (write, move, next state)`` as a table ``[states, symbols, 3]`` of integers.

    States are numbered as they come first in the rules, and ``halt`` is the number after the last.

    Raises:
        ValueError: a pair of state and symbol has no rule, a move is not -1, 0 or 1, or a next state has no rules.
    """
    names = list(dict.fromkeys(state for state, _ in rules))
    number = {name: i for i, name in enumerate(names)} | {halt: len(names)}
    symbols = 1 + max(max(symbol, write) for (_, symbol), (write, _, _) in rules.items())
    table = np.zeros((len(names), symbols, 3), np.int32)
    for name in names:
        for symbol in range(symbols):
            if (name, symbol) not in rules:
                raise ValueError(f"there is no rule for state {name!r} and symbol {symbol}")
            write, move, following = rules[name, symbol]
            if move not in (-1, 0, 1) or following not in number:
                raise ValueError(
                    f"the rule for state {name!r} and symbol {symbol} moves by {move} into state {following!r}: a move "
                    f"is -1, 0 or 1, and the states are {', '.join(number)}"
                )
            table[number[name], symbol] = write, move, number[following]
    return jnp.asarray(table)


def run_turing_machine(
    table: jax.Array, tape: jax.Array, head: int | jax.Array, *, steps: int = 1000
) -> Halted:
    """Follow the rules from state 0 until the machine halts, leaves the tape, or so many steps are done.

    The tape is ``[cells]`` of integers; whoever leaves it has not halted. Pure, and a loop on the device.
    """
    states = table.shape[0]

    def running(at: Any) -> jax.Array:
        tape, head, state, count = at
        return (state < states) & (count < steps) & (head >= 0) & (head < len(tape))

    def step(at: Any) -> Any:
        tape, head, state, count = at
        write, move, following = table[state, tape[head]]
        return tape.at[head].set(write), head + move, following, count + 1

    start = (jnp.asarray(tape, jnp.int32), jnp.asarray(head, jnp.int32), jnp.int32(0), jnp.int32(0))
    tape, head, state, count = jax.lax.while_loop(running, step, start)
    return Halted(tape, head, count, state == states)


def busy_beaver_3() -> jax.Array:
    """The table of the machine of three states and two symbols that writes the most ones, six (Rado 1962).

    >>> end = run_turing_machine(busy_beaver_3(), jnp.zeros(9, int), 4)
    >>> int(end.tape.sum()), int(end.steps), bool(end.halted)
    (6, 14, True)
    """
    return compile_rules(
        {
            ("A", 0): (1, 1, "B"),
            ("A", 1): (1, 1, "halt"),
            ("B", 0): (0, 1, "C"),
            ("B", 1): (1, 1, "B"),
            ("C", 0): (1, -1, "C"),
            ("C", 1): (1, -1, "A"),
        }
    )
