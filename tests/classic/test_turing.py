"""Turing's machine follows its table."""

import jax
import jax.numpy as jnp
import pytest

from purenets.classic import turing


@pytest.mark.covers("M71")
def test_the_busy_beaver_of_three_states_writes_six_ones_in_fourteen_steps():
    end = jax.jit(turing.run_turing_machine)(turing.busy_beaver_3(), jnp.zeros(11, int), 5)
    assert int(end.tape.sum()) == 6
    assert int(end.steps) == 14
    assert bool(end.halted)


@pytest.mark.covers("M71")
@pytest.mark.parametrize("number", range(8))
def test_a_machine_adds_one_to_any_binary_number_all_at_once(number):
    # The number stands before the last cell, lowest digit last; the head begins on the lowest digit.
    table = turing.compile_rules({("carry", 0): (1, 0, "halt"), ("carry", 1): (0, -1, "carry")})
    digits = jnp.array([[int(d) for d in f"{n:05b}"] for n in range(8)])
    ends = jax.vmap(lambda tape: turing.run_turing_machine(table, tape, 4))(digits)
    assert "".join(map(str, ends.tape[number].tolist())) == f"{number + 1:05b}"
    assert bool(ends.halted[number])


def test_a_machine_that_does_not_halt_or_leaves_the_tape_says_so():
    stay = turing.compile_rules({("stay", 0): (0, 0, "stay")})
    end = turing.run_turing_machine(stay, jnp.zeros(3, int), 1, steps=50)
    assert (int(end.steps), bool(end.halted)) == (50, False)
    walk = turing.compile_rules({("walk", 0): (0, 1, "walk")})
    end = turing.run_turing_machine(walk, jnp.zeros(3, int), 0, steps=50)
    assert (int(end.steps), int(end.head), bool(end.halted)) == (3, 3, False)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({("a", 0): (1, 1, "a")}, "no rule for state 'a' and symbol 1"),
        ({("a", 0): (0, 2, "a")}, "moves by 2 into state 'a'"),
        ({("a", 0): (0, 1, "b")}, "the states are a, halt"),
    ],
    ids=["missing", "move", "state"],
)
def test_tables_with_holes_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        turing.compile_rules(rules)
