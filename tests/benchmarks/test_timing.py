"""Turns, ratios and the comparison of losses, on contestants whose numbers are known."""

from __future__ import annotations

import itertools
import time

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import disagreements, numbers, ratio, take_turns


def _counter(start, step):
    values = itertools.count()
    return lambda: jnp.float32(start + step * next(values))


def test_a_ratio_is_the_median_of_the_ratios_within_a_round_and_not_of_medians():
    # The machine gets ten times slower in the middle of the run, for both alike.
    base = [1.0, 1.0, 10.0, 10.0]
    assert ratio([2.0, 2.0, 20.0, 20.0], base) == (2.0, 2.0, 2.0)
    assert ratio([1.0, 2.0, 30.0, 40.0], base)[0] == 2.5


def test_every_contestant_is_called_as_often_and_none_always_follows_another():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    times = take_turns(calls, rounds=20, repeats=2)
    assert {name: len(values) for name, values in times.items()} == {"a": 20, "b": 20, "c": 20}
    turns = ["".join(seen[i : i + 6]) for i in range(0, len(seen), 6)]
    assert all(sorted(turn) == sorted("aabbcc") and turn[::2] == turn[1::2] for turn in turns)
    assert len(set(turns)) > 3


def test_a_slower_contestant_takes_longer_by_what_it_sleeps():
    calls = {"fast": lambda: None, "slow": lambda: time.sleep(0.02)}
    times = take_turns(calls, rounds=3)
    assert min(times["slow"]) >= 0.02 > max(times["fast"])


def test_rounds_end_with_the_time_that_is_given_but_not_before_the_fifth():
    calls = {"slow": lambda: time.sleep(0.01)}
    assert len(take_turns(calls, rounds=100, seconds=0.0)["slow"]) == 5
    assert 5 < len(take_turns(calls, rounds=100, seconds=0.3)["slow"]) < 40


def test_what_comes_before_a_call_is_not_timed():
    times = take_turns({"a": lambda: None}, rounds=2, before=lambda: time.sleep(0.05))
    assert max(times["a"]) < 0.05


def test_contestants_with_the_same_losses_agree():
    calls = {name: _counter(2.0, -0.1) for name in "ab"}
    assert disagreements(calls, "a", 3, 1e-4) == {}


@pytest.mark.parametrize(
    ("start", "step", "said"),
    [
        pytest.param(2.001, -0.1, "call 1: 2.001 where a has 2", id="another first loss"),
        pytest.param(2.0, -0.11, "call 2: 1.89 where a has 1.9", id="another gradient"),
        pytest.param(np.nan, 0.0, "call 1: nan where a has 2", id="not a number"),
    ],
)
def test_a_contestant_whose_losses_differ_is_named_with_them(start, step, said):
    calls = {"a": _counter(2.0, -0.1), "b": _counter(start, step)}
    assert disagreements(calls, "a", 3, 1e-4) == {"b": said}


def test_a_contestant_with_fewer_numbers_differs():
    calls = {"a": lambda: jnp.ones(3), "b": lambda: jnp.ones(2)}
    assert disagreements(calls, "a", 1, 1e-4) == {"b": "2 numbers where a has 3"}


def test_numbers_come_in_the_order_of_the_leaves():
    assert numbers({"b": [jnp.arange(2), 2.0], "a": np.float32(7)}).tolist() == [7, 0, 1, 2]
